// What differs from the version, file or target that `--diff` named; where nothing was named, this
// view is not there.

const changes = {
  any: DOCUMENT.differences !== undefined,

  show() {
    const told = DOCUMENT.differences.map((one) => this.of(one));
    const nothing = make("p", { class: "hint" }, "There is nothing to compare.");
    $("view-changes").replaceChildren(
      make("p", { class: "hint" }, "What is there now, against ", make("bdi", { class: "name" }, shown(DOCUMENT.old ?? "the version before"))),
      ...(told.length ? told : [nothing]),
    );
  },

  of(one) {
    const { dependencies } = one;
    const added = sumOf(one.added.flatMap((group) => group.files));
    const removed = sumOf(one.removed.flatMap((group) => group.files));
    const parts = [
      ...one.added.map((group) => this.group("Added", "+", group)),
      ...one.removed.map((group) => this.group("Removed", "\u2212", group)),
      this.list("Changed", one.changed.map(({ path, source, before, after }) => this.row("~", path, source, `${bytes(before.size)} \u2192 ${bytes(after.size)}`))),
      this.list("Dependencies between what both have", [
        ...dependencies.added.map((edge) => this.row("+", ...this.edge(edge))),
        ...dependencies.removed.map((edge) => this.row("\u2212", ...this.edge(edge))),
      ]),
      this.list("Third-party requirements", one.packages.map((of) => this.turned(of.name, of.before, of.after))),
      this.list("Layers", one.layers.map(({ platform, before, after }) => {
        const what = (layer) => layer && `${layer.what}, ${bytes(layer.size)}`;
        return this.turned(platform, what(before), what(after));
      })),
      this.list("Settings", one.settings.map((of) => this.turned(of.name, of.before, of.after))),
    ].filter(Boolean);
    return make(
      "section",
      { class: "difference" },
      make("h2", {}, make("bdi", {}, shown(one.address)), " ", make("span", { class: `badge ${one.status}` }, one.status)),
      make("p", { class: "hint" }, `${counted(added.count, "file")} added (${bytes(added.size)}), ${commas(removed.count)} removed (${bytes(removed.size)}), ${commas(one.changed.length)} changed`),
      ...parts,
    );
  },

  group(title, sign, { by, files }) {
    const why = by && make("span", {}, " by ", make("bdi", { class: "name" }, `${shown(by.from)} \u2192 ${shown(by.to)}`), ` [${said(by.reason)}]`);
    const rows = files.map((file) => this.row(sign, file.path, file.source, bytes(file.size)));
    return this.list(title, rows, why);
  },

  edge({ from, to, reason }) {
    return [make("bdi", { class: "name" }, `${shown(from)} \u2192 ${shown(to)}`), null, said(reason)];
  },

  /** A line; what is there now is a link. */
  row(sign, name, source, text) {
    const kind = { "+": "added", "~": "changed" }[sign] ?? "removed";
    const named = typeof name !== "string" ? name : current.nodes.has(source) ? linkTo(source, name) : make("bdi", { class: "name" }, shown(name));
    return make("li", { class: kind }, make("span", { class: "sign", "aria-label": kind, role: "img" }, sign), named, make("span", { class: "text" }, text));
  },

  /** Of what has a value before and after. */
  turned(name, before, after) {
    const sign = before === null || before === undefined ? "+" : after === null || after === undefined ? "\u2212" : "~";
    const text = [before, after].filter((value) => value !== null && value !== undefined).map(shown).join(" \u2192 ");
    return this.row(sign, name, null, text);
  },

  list(title, rows, why = null) {
    if (!rows.length) return null;
    const list = make("ul", { class: "lines" }, ...rows.slice(0, ROWS));
    const more = make("button", { type: "button", class: "more" }, `${commas(rows.length - ROWS)} more`);
    more.addEventListener("click", () => {
      list.append(...rows.slice(ROWS));
      more.remove();
    });
    return make("div", {}, make("h3", {}, title, why), list, rows.length > ROWS ? more : null);
  },
};

function sumOf(files) {
  return { count: files.length, size: files.reduce((sum, file) => sum + file.size, 0) };
}
