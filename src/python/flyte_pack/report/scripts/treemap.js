// What weighs how much: nested boxes, laid out by d3-hierarchy.

const HEAD = 22; // of an open folder, in pixels
const DEEPEST = 4;

const treemap = {
  at: null, // the folder that fills the picture

  start() {
    const box = $("treemap");
    roving(box, ".cell");
    explains(box, ".cell", (cell) => cell.about());
    box.addEventListener("click", (event) => event.target.closest(".cell")?.act());
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Backspace" && event.key !== "Escape") return;
      event.preventDefault();
      if (this.at.parent) this.open(this.at.parent, true);
    });
    let width = 0;
    new ResizeObserver(() => {
      if (Math.abs(box.clientWidth - width) > 1) this.draw();
      width = box.clientWidth;
    }).observe(box);
    for (const name of ["grouping", "measure"]) $(name).addEventListener("change", () => this.show());
  },

  /** Another artifact, or another way to group it. */
  show() {
    this.offer();
    const grouped = document.querySelector("input[name=group]:checked").value;
    this.measure = document.querySelector("input[name=area]:checked").value;
    const key = `${current.address} ${grouped}`;
    if (this.key !== key) {
      this.key = key;
      this.tree =
        grouped === "layer"
          ? treeOf(leavesOf(current.layers), (leaf) => leaf.place)
          : treeOf(current.files, (file) => (grouped === "folder" ? file.path.split("/") : [file.library, file.path]));
      this.tree.name = current.address;
      this.at = this.tree;
      this.leaves = [];
      const collect = (node) => (node.item ? this.leaves.push(node) : node.children.forEach(collect));
      collect(this.tree);
    }
    this.draw();
  },

  /** What can be chosen here: layers of an image that has some, packed bytes of what was packed. */
  offer() {
    $("by-layer").hidden = !current.layers;
    $("by-packed").hidden = !current.files.some((file) => file.packed !== null) && !current.layers;
    const choose = (name, value) => {
      document.querySelector(`input[name=${name}][value=${value}]`).checked = true;
    };
    const checked = (name) => document.querySelector(`input[name=${name}]:checked`).value;
    if ($("by-layer").hidden && checked("group") === "layer") choose("group", "folder");
    if ($("by-packed").hidden && checked("area") === "packed") choose("area", "size");
    if (current.layers && !current.files.length && checked("group") !== "layer") {
      choose("group", "layer");
      choose("area", "packed");
    }
  },

  weight(node) {
    return this.measure === "count" ? node.count : node[this.measure];
  },

  open(folder, focus) {
    const from = this.at;
    this.at = folder;
    this.draw();
    if (!focus) return;
    const cells = [...$("treemap").querySelectorAll(".cell")];
    reach($("treemap"), ".cell", cells.find((cell) => cell.node === from) ?? cells[0])?.focus();
  },

  draw() {
    const box = $("treemap");
    const [width, height] = [box.clientWidth, box.clientHeight];
    if (!this.at || !width) return;
    const root = lib
      .hierarchy(this.at, (node) => node.children)
      .sum((node) => (node.item ? this.weight(node) : 0))
      .sort((a, b) => b.value - a.value || (a.data.name < b.data.name ? -1 : 1));
    lib
      .treemap()
      .tile(lib.treemapSquarify.ratio(1.4))
      .size([width, height])
      .paddingInner(2)
      .paddingOuter((node) => (node.depth ? 3 : 0))
      .paddingTop((node) => (node.depth ? HEAD : 0))
      .round(true)(root);
    const cells = [];
    this.colour(root);
    for (const child of root.children ?? []) this.cells(child, cells);
    if (!cells.length) {
      const empty = this.tree.count ? "Every file here is empty. Choose the area by files." : "It has no files of its own.";
      cells.push(make("p", { class: "empty" }, empty));
    }
    box.replaceChildren(...cells);
    reach(box, ".cell");
    this.crumbs();
    this.mark();
  },

  /** Each folder that stands beside others gets a colour, and all below it have that, too. */
  colour(root) {
    let at = root;
    while (at.children?.[0].children && at.children[0].value > 0.8 * at.value) at = at.children[0];
    at.children?.forEach((child, number) => {
      for (const below of child) below.hue = Math.min(number, 9);
    });
  },

  cells(laid, cells) {
    const { x0, y0, data: node, parent, hue = 9 } = laid;
    // Of what is too small for its padding, d3 lays a part outside.
    const edge = parent.depth ? 3 : 0;
    laid.x1 = Math.min(laid.x1, parent.x1 - edge);
    laid.y1 = Math.min(laid.y1, parent.y1 - edge);
    const [w, h] = [laid.x1 - x0, laid.y1 - y0];
    if (w < 3 || h < 3) return;
    const roomy = laid.children && laid.depth < DEEPEST && w > 64 && h > 48;
    const open = roomy && laid.children.some((c) => c.x1 - c.x0 > 16 && c.y1 - c.y0 > 10);
    const kind = node.item ? "file" : open ? "open" : "closed";
    if (open) {
      const back = make("div", { class: `back hue${hue} deep${laid.depth % 2}` });
      this.place(back, x0, y0, w, h);
      cells.push(back);
    }
    const weighs = this.measure === "count" ? counted(node.count, "file") : bytes(this.weight(node));
    const whole = this.measure === "packed" ? this.tree.packed : this.tree.size;
    const part = this.measure === "packed" ? node.packed : node.size;
    const folder = this.key.endsWith(" layer") ? "layer" : "folder";
    // It begins with what is seen, as whoever speaks to the page says that.
    const what = node.item ? node.item.kind : folder;
    const label = `${shown(node.name)} ${weighs}, ${what} ${shown(node.path)}, ${bytes(node.size)} in ${counted(node.count, "file")}`;
    const cell = make(
      "button",
      { type: "button", class: `cell ${kind} hue${hue} deep${laid.depth % 2}`, tabindex: "-1", "aria-label": label },
      h > 16 && w > Math.min(58, node.name.length * 7.2 + 16) ? make("span", { class: "n" }, make("bdi", {}, shown(node.name))) : null,
      " ",
      w > (open ? node.name.length * 7.2 + weighs.length * 7 + 30 : weighs.length * 6.4 + 14) && (open || h > 36) ? make("span", { class: "s" }, weighs) : null,
    );
    cell.node = node;
    cell.act = () => (!node.item ? this.open(node, true) : node.item.of ? go({ view: "layers" }) : select(node.item.name));
    cell.about = () =>
      node.item && !node.item.of
        ? about(node.item, current.size)
        : [
            shown(node.item?.path ?? (node.path || node.name)),
            `${bytes(part)}, ${percent(part, whole)} of all`,
            counted(node.count, "file"),
            ...(node.item ? [`in the layer ${shown(node.item.of.what)}`] : []),
          ];
    this.place(cell, x0, y0, w, open ? HEAD - 2 : h);
    cells.push(cell);
    if (open) for (const child of laid.children) this.cells(child, cells);
  },

  place(element, x, y, w, h) {
    Object.assign(element.style, { left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${h}px` });
  },

  crumbs() {
    const above = [];
    for (let at = this.at; at; at = at.parent) above.unshift(at);
    $("crumbs").replaceChildren(
      ...above.map((folder) => {
        const here = folder === this.at;
        const name = folder.parent ? shown(folder.name) : shown(current.address);
        const button = make("button", { type: "button", "aria-current": here ? "location" : null }, make("bdi", {}, name));
        button.addEventListener("click", () => this.open(folder, false));
        return make("li", {}, button);
      }),
      make("li", { class: "sum" }, `${this.measure === "packed" ? "packed " : ""}${bytes(this.measure === "packed" ? this.at.packed : this.at.size)}, ${counted(this.at.count, "file")}`),
    );
  },

  /** What is selected, its way, and what a search found. */
  mark() {
    const hits = new Set();
    if (search.query) {
      for (const leaf of this.leaves) {
        if (search.hits.has(leaf.item)) for (let at = leaf; at && !hits.has(at); at = at.parent) hits.add(at);
      }
    }
    const way = new Set(current.wayOf(state.selected).map((step) => step.name));
    $("treemap").classList.toggle("searched", Boolean(search.query));
    for (const cell of $("treemap").querySelectorAll(".cell")) {
      const name = cell.node.item?.name;
      cell.classList.toggle("hit", hits.has(cell.node));
      cell.classList.toggle("way", way.has(name) && name !== state.selected);
      cell.classList.toggle("selected", name !== undefined && name === state.selected);
    }
  },
};
