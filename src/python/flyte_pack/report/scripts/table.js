// The files as a table that sorts by each column. Rows come as they are needed.

const ROWS = 60;
const byText = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const COLUMNS = [
  { name: "File", key: "path", order: (a, b) => byText(a.path, b.path) },
  { name: "Size", key: "size", order: (a, b) => b.size - a.size, number: true },
  ...(PACKED ? [{ name: "Packed", key: "packed", order: (a, b) => b.packed - a.packed, number: true }] : []),
  { name: "Kind", key: "kind", order: (a, b) => byText(a.kind, b.kind) },
  { name: "Owner", key: "owner", order: (a, b) => byText(a.owner ?? "", b.owner ?? "") },
  { name: "Because it is", key: "reason", order: (a, b) => byText(a.reason, b.reason) },
  { name: "Steps", key: "length", order: (a, b) => b.length - a.length, number: true },
];

const table = {
  by: COLUMNS[1],
  reversed: false,

  start() {
    const heads = COLUMNS.map((column) => {
      const button = make("button", { type: "button" }, column.name);
      button.addEventListener("click", () => {
        this.reversed = this.by === column && !this.reversed;
        this.by = column;
        this.show();
      });
      return make("th", { scope: "col", class: column.number ? `${column.key} number` : column.key }, button);
    });
    this.heads = heads;
    this.body = make("tbody");
    this.more = make("button", { type: "button", class: "more" });
    this.more.addEventListener("click", () => {
      const first = this.body.rows.length;
      this.grow();
      this.body.rows[first]?.querySelector("a").focus({ preventScroll: true });
    });
    this.table = make(
      "table",
      { class: "files" },
      make("caption", {}, "All files. A button in a column's head sorts by it."),
      make("thead", {}, make("tr", {}, ...heads)),
      this.body,
    );
    $("table").append(this.table, this.more);
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row && !event.target.closest("a")) select(row.file.name);
    });
    new IntersectionObserver((seen) => {
      if (seen.some((one) => one.isIntersecting)) this.grow();
    }, { rootMargin: "400px" }).observe(this.more);
  },

  show() {
    const sign = this.reversed ? -1 : 1;
    const [of, by, reversed] = this.sorted?.as ?? [];
    if (of !== current || by !== this.by || reversed !== this.reversed) {
      this.sorted = [...current.files].sort((a, b) => sign * this.by.order(a, b) || byText(a.path, b.path));
      this.sorted.as = [current, this.by, this.reversed];
    }
    this.files = search.query ? this.sorted.filter((file) => search.hits.has(file)) : this.sorted;
    this.heads.forEach((head, at) => {
      const column = COLUMNS[at];
      if (column !== this.by) head.removeAttribute("aria-sort");
      // Sizes and lengths start with the largest.
      else head.setAttribute("aria-sort", this.reversed !== Boolean(column.number) ? "descending" : "ascending");
    });
    this.table.setAttribute("aria-rowcount", String(this.files.length + 1));
    this.body.replaceChildren();
    this.grow();
  },

  grow() {
    const from = this.body.rows.length;
    this.body.append(...this.files.slice(from, from + ROWS).map((file, at) => this.row(file, from + at)));
    const left = this.files.length - this.body.rows.length;
    this.more.hidden = left <= 0;
    this.more.textContent = `Show ${Math.min(ROWS, left)} more of ${commas(left)}`;
    this.mark();
  },

  row(file, at) {
    const row = make(
      "tr",
      { "aria-rowindex": String(at + 2) },
      make("th", { scope: "row", class: "path" }, linkTo(file.name, file.path)),
      make("td", { class: "size number" }, bytes(file.size)),
      PACKED ? make("td", { class: "packed number" }, packedAs(file.packed, "")) : null,
      make("td", { class: "kind" }, file.kind),
      make("td", { class: "owner" }, make("bdi", {}, shown(file.owner ?? "(no owner)"))),
      make("td", { class: "reason" }, said(file.reason)),
      make("td", { class: "length number" }, String(file.length)),
    );
    row.file = file;
    return row;
  },

  mark() {
    for (const row of this.body.rows) {
      const here = row.file.name === state.selected;
      row.classList.toggle("selected", here);
      if (here) row.querySelector("a").setAttribute("aria-current", "true");
      else row.querySelector("a").removeAttribute("aria-current");
    }
  },
};
