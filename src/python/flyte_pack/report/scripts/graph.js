// Who needs whom: layers from the entry point on, laid out by dagre, moved by d3-zoom. Folders are
// closed as long as there is too much to read; what leads to the selection is always shown.

const READABLE = 22; // nodes that are shown at first
const CROWD = 24; // children of a folder that are shown one by one
const MANY = 120; // nodes with which only those around the selection are shown at first
const NEAR = 12; // needs, and what needs it, around the selection
const THIRD_PARTY = "third-party";
const LONGEST = 30; // characters of a name

const graph = {
  start() {
    const box = $("graph");
    this.svg = lib.select(box).append("svg").attr("width", "100%").attr("height", "100%");
    const arrows = this.svg.append("defs").selectAll("marker").data(["plain", "way"]).join("marker");
    arrows.attr("id", (kind) => `arrow-${kind}`).attr("viewBox", "0 0 8 8").attr("refX", 7).attr("refY", 4);
    arrows.attr("markerWidth", 7).attr("markerHeight", 7).attr("orient", "auto-start-reverse").append("path").attr("d", "M0,0.5L8,4L0,7.5z");
    this.canvas = this.svg.append("g");
    this.empty = make("p", { class: "empty", hidden: true }, "Nothing here needs anything.");
    box.append(this.empty);
    this.zoom = lib
      .zoom()
      .scaleExtent([0.08, 2.5])
      .on("zoom", ({ transform }) => this.canvas.attr("transform", transform));
    this.svg.call(this.zoom).on("dblclick.zoom", null);
    this.pen = document.createElement("canvas").getContext("2d");
    roving(box, "[data-node]");
    explains(box, "[data-node]", (element) => element.about());
    const act = (event) => event.target.closest("[data-node]")?.act();
    box.addEventListener("click", act);
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      act(event);
    });
    box.addEventListener("focusin", (event) => this.bring(event.target.closest("[data-node]")));
    $("larger").addEventListener("click", () => this.svg.call(this.zoom.scaleBy, 1.4));
    $("smaller").addEventListener("click", () => this.svg.call(this.zoom.scaleBy, 1 / 1.4));
    $("fit").addEventListener("click", () => this.fit());
    $("collapse").addEventListener("click", () => {
      this.open = new Set([this.tree]);
      this.draw();
    });
    const lit = (event) => {
      const node = event.target.closest?.("[data-node]")?.node;
      this.canvas.selectAll(".edge").classed("lit", (edge) => node && (edge.from === node || edge.to === node));
    };
    for (const kind of ["pointerover", "focusin"]) box.addEventListener(kind, lit);
    for (const name of ["scope", "packages"]) $(name).addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.fit()).observe(box);
  },

  show() {
    if (this.of !== current) {
      this.of = current;
      this.tree = treeOf(current.nodes.values(), (node) =>
        node.file ? node.name.split("/") : node.requirement ? [THIRD_PARTY, node.label] : [node.name],
      );
      this.leaf = new Map();
      this.ids = 0;
      this.prepare(this.tree);
      this.open = new Set([this.tree]);
      this.openSome();
      this.last = null;
      document.querySelector(`input[name=scope][value=${current.nodes.size > MANY || narrow.matches ? "near" : "all"}]`).checked = true;
    }
    this.draw();
  },

  /** Number the folders and files, and put what is too much for one folder into one more below it. */
  prepare(folder) {
    folder.id = `n${this.ids++}`;
    if (folder.item) this.leaf.set(folder.item.name, folder);
    if (!folder.children) return;
    const weight = (node) => (node.item ? node.item.into.length + node.item.out.length : node.count);
    folder.children.sort((a, b) => Boolean(a.item) - Boolean(b.item) || weight(b) - weight(a) || byText(a.name, b.name));
    if (folder.children.length > CROWD + 4) {
      const rest = folder.children.slice(CROWD);
      const count = rest.reduce((sum, node) => sum + node.count, 0);
      const size = rest.reduce((sum, node) => sum + node.size, 0);
      const more = { name: `${commas(rest.length)} more`, path: folder.path, parent: folder, children: rest, count, size };
      for (const node of rest) node.parent = more;
      folder.children = [...folder.children.slice(0, CROWD), more];
    }
    for (const child of folder.children) this.prepare(child);
  },

  /** Open folders, the largest first, as long as the picture can be read. */
  openSome() {
    const seen = [...this.tree.children];
    for (;;) {
      const closed = seen.filter((node) => node.children && seen.length - 1 + node.children.length <= READABLE);
      if (!closed.length) return;
      const largest = closed.reduce((a, b) => (b.count > a.count ? b : a));
      this.open.add(largest);
      seen.splice(seen.indexOf(largest), 1, ...largest.children);
    }
  },

  /** The node that stands for a file: itself, or the closed folder that it is in. */
  standsFor(leaf) {
    if (this.pinned.has(leaf)) return leaf;
    let stands = leaf;
    for (let at = leaf.parent; at; at = at.parent) if (!this.open.has(at)) stands = at;
    return stands;
  },

  draw() {
    if (this.of !== current || !$("graph").clientWidth) return;
    const selected = current.nodes.get(state.selected);
    const way = current.wayOf(state.selected).map((step) => current.nodes.get(step.name));
    const start = current.nodes.get(current.address);
    if (way.length && start && start !== way[0]) way.unshift(start);
    const onWay = new Set(way.slice(1).map((node, at) => `${way[at].name}\n${node.name}`));
    const near = selected && document.querySelector("input[name=scope]:checked").value === "near";
    this.pinned = new Set([...way, selected].filter(Boolean).map((node) => this.leaf.get(node.name)));
    const edges = near ? this.around(selected, way) : [...current.nodes.values()].flatMap((node) => node.out);
    const drawn = new Map();
    const shownNodes = new Set(this.pinned);
    for (const edge of edges) {
      const isWay = onWay.has(`${edge.from.name}\n${edge.to.name}`);
      if (edge.reason === "package" && !isWay && !near && !$("packages").checked) continue;
      const [from, to] = [edge.from, edge.to].map((node) => this.standsFor(this.leaf.get(node.name)));
      if (from === to) continue;
      const key = `${from.id} ${to.id}`;
      const one = drawn.get(key) ?? { from, to, count: 0, reason: edge.reason, way: false };
      one.count += 1;
      one.way ||= isWay;
      if (edge.reason === "imported") one.reason = "imported";
      drawn.set(key, one);
      shownNodes.add(from).add(to);
    }
    this.nodes = [...shownNodes];
    this.edges = [...drawn.values()];
    this.empty.hidden = this.nodes.length > 0;
    this.frame();
    this.way = new Set(way);
    this.layOut();
    this.paint();
    this.mark(); // before it is fitted, which looks for what is marked
    const key = this.nodes.map((node) => node.id).join();
    if (key !== this.last) this.fit();
    this.last = key;
  },

  /** The edges that make the layers: all, or in a thicket those that lead to a node first. */
  frame() {
    if (this.edges.length < 1.5 * this.nodes.length) {
      for (const edge of this.edges) edge.framing = true;
      return;
    }
    const out = new Map();
    for (const edge of this.edges) out.set(edge.from, [...(out.get(edge.from) ?? []), edge]);
    const start = this.leaf.get(current.address);
    const seen = new Set([start]);
    for (const at of seen) {
      for (const edge of out.get(at) ?? []) {
        edge.framing = edge.way || !seen.has(edge.to);
        seen.add(edge.to);
      }
    }
  },

  around(selected, way) {
    const edges = [...selected.into.slice(0, NEAR), ...selected.out.slice(0, NEAR)];
    way.slice(1).forEach((node, at) => edges.push(...way[at].out.filter((edge) => edge.to === node)));
    for (const { from, to } of edges) for (const node of [from, to]) this.pinned.add(this.leaf.get(node.name));
    return edges;
  },

  label(node) {
    const alone = node.item && !node.item.requirement && !this.open.has(node.parent);
    const text = shown(alone ? node.path : node.name) + (node.children ? "/" : "");
    return text.length > LONGEST ? `\u2026${text.slice(1 - LONGEST)}` : text;
  },

  meta(node) {
    if (node.path === THIRD_PARTY) return counted(node.count, "requirement");
    if (node.children) return `${counted(node.count, "file")}, ${bytes(node.size)}`;
    return node.item.file ? bytes(node.size) : "";
  },

  layOut() {
    const wide = $("graph").clientWidth > 640;
    const laid = new lib.Graph({ compound: true });
    laid.setGraph({ rankdir: wide ? "LR" : "TB", nodesep: wide ? 18 : 26, edgesep: 6, ranksep: 52, marginx: 12, marginy: 12 });
    laid.setDefaultEdgeLabel(() => ({}));
    const style = getComputedStyle(document.body);
    for (const node of this.nodes) {
      this.pen.font = `13px ${style.getPropertyValue("--mono")}`;
      const width = Math.max(this.pen.measureText(this.label(node)).width, this.meta(node).length * 6.6);
      laid.setNode(node.id, { width: Math.ceil(width) + 26, height: this.meta(node) ? 42 : 28 });
    }
    this.boxes = new Set();
    const above = (node) => {
      const folder = node.parent;
      if (!folder?.parent || !this.open.has(folder)) return;
      if (!this.boxes.has(folder)) {
        this.boxes.add(folder);
        laid.setNode(folder.id, {});
        above(folder);
      }
      laid.setParent(node.id, folder.id);
    };
    this.nodes.forEach(above);
    for (const { from, to, way, framing } of this.edges) {
      if (framing) laid.setEdge(from.id, to.id, { weight: way ? 4 : 1 });
    }
    lib.layout(laid);
    this.laid = laid;
  },

  /** Points of an edge: those of its layout, or a bow between its ends. */
  bend({ from, to, framing }) {
    if (framing) return this.laid.edge(from.id, to.id).points;
    const [a, b] = [this.laid.node(from.id), this.laid.node(to.id)];
    const along = this.laid.graph().rankdir === "LR" ? ["x", "width", "y"] : ["y", "height", "x"];
    const [main, extent, side] = along;
    const ahead = a[main] < b[main] - 1 ? 1 : -1;
    const point = (m, s) => ({ [main]: m, [side]: s });
    const [start, end] = [a[main] + (ahead * a[extent]) / 2, b[main] - (ahead * b[extent]) / 2];
    const reach = Math.max(30, Math.abs(end - start) / 2.5) * ahead;
    return [point(start, a[side]), point(start + reach, a[side]), point(end - reach, b[side]), point(end, b[side])];
  },

  paint() {
    const boxes = [...this.boxes].sort((a, b) => depthOf(a) - depthOf(b));
    const draw = lib.line((p) => p.x, (p) => p.y).curve(lib.curveBasis);
    this.canvas.selectAll("*").remove();
    const frames = this.canvas.append("g").selectAll("g").data(boxes).join("g");
    frames.attr("class", "frame").each((folder, at, all) => {
      const { x, y, width, height } = this.laid.node(folder.id);
      const frame = lib.select(all[at]).attr("transform", `translate(${x - width / 2},${y - height / 2})`);
      frame.append("rect").attr("y", -16).attr("width", width).attr("height", height + 16).attr("rx", 10);
    });
    const lines = this.canvas.append("g").selectAll("path").data(this.edges).join("path");
    lines
      .attr("class", (edge) => `edge ${edge.reason}${edge.way ? " way" : ""}${edge.framing ? "" : " across"}`)
      .attr("d", (edge) => draw(this.bend(edge)))
      .attr("stroke-width", (edge) => (edge.way ? 3 : Math.min(2.4, 1.2 + Math.log2(edge.count) / 8)))
      .attr("marker-end", (edge) => `url(#arrow-${edge.way ? "way" : "plain"})`);
    lines.filter((edge) => edge.way).raise();
    const heads = this.canvas.append("g").selectAll("g").data(boxes).join("g");
    heads.attr("class", "shut").each((folder, at, all) => {
      const { x, y, width, height } = this.laid.node(folder.id);
      const head = lib.select(all[at]).attr("transform", `translate(${x - width / 2 + 10},${y - height / 2 - 4})`);
      head.append("text").text(`\u2212 ${cut(shown(folder.name), Math.max(6, Math.floor((width - 24) / 7.4)))}/`);
      this.acts(all[at], folder, "Close", () => {
        this.open.delete(folder);
        this.again(folder);
      });
      all[at].setAttribute("aria-expanded", "true");
    });
    const nodes = this.canvas.append("g").selectAll("g").data(this.nodes).join("g");
    nodes.each((node, at, all) => {
      const { x, y, width, height } = this.laid.node(node.id);
      const kind = node.children ? "folder" : node.item.requirement ? "requirement" : node.item.file ? "file" : "target";
      const group = lib.select(all[at]).attr("class", `node ${kind}`).attr("transform", `translate(${x - width / 2},${y - height / 2})`);
      if (node.children) group.append("rect").attr("class", "under").attr("x", 4).attr("y", 4).attr("width", width).attr("height", height).attr("rx", 7);
      group.append("rect").attr("class", "box").attr("width", width).attr("height", height).attr("rx", kind === "requirement" ? height / 2 : 7);
      group.append("text").attr("class", "n").attr("x", 13).attr("y", 18).text(this.label(node));
      all[at].append(" ");
      if (this.meta(node)) group.append("text").attr("class", "s").attr("x", 13).attr("y", 34).text(this.meta(node));
      if (node.children) {
        this.acts(all[at], node, "Open", () => {
          this.open.add(node);
          this.again(node.children[0]);
        });
        all[at].setAttribute("aria-expanded", "false");
      } else this.acts(all[at], node, "", () => select(node.item.name));
    });
    reach($("graph"), "[data-node]");
  },

  acts(element, node, verb, act) {
    element.setAttribute("data-node", node.id);
    element.setAttribute("role", "button");
    element.setAttribute("tabindex", "-1");
    const file = node.item?.file;
    const lines = file
      ? about(file, current.size)
      : node.children
        ? [shown(node.path || node.name), this.meta(node), verb === "Open" ? "Opens" : "Closes"]
        : [shown(node.item.label), node.item.requirement ? "third-party requirement" : "target"];
    const counts = node.item ? `, needs ${node.item.out.length}, needed by ${node.item.into.length}` : "";
    const name = `${verb} ${lines.slice(0, 2).join(", ")}${counts}`.trim();
    element.setAttribute("aria-label", `${[...element.querySelectorAll("text")].map((text) => text.textContent).join(" ")}, ${name}`);
    element.node = node;
    element.act = act;
    element.about = () => lines;
  },

  /** Draw anew, and have the focus on a node; or on what stands for it, if it is not shown. */
  again(node) {
    this.draw();
    const all = [...$("graph").querySelectorAll("[data-node]")];
    const of = (wanted) => all.find((element) => element.node === wanted);
    reach($("graph"), "[data-node]", of(node) ?? of(node.parent) ?? all[0])?.focus();
  },

  mark() {
    const hits = new Set();
    if (search.query) {
      for (const [name, leaf] of this.leaf) {
        if (search.has(current.nodes.get(name))) for (let at = leaf; at && !hits.has(at); at = at.parent) hits.add(at);
      }
    }
    const selected = current.nodes.get(state.selected);
    const box = $("graph");
    box.classList.toggle("searched", Boolean(search.query));
    box.classList.toggle("selecting", Boolean(selected));
    const beside = new Set([...(selected?.out ?? []).map((e) => e.to), ...(selected?.into ?? []).map((e) => e.from)]);
    const besides = new Set([...beside].map((node) => this.standsFor(this.leaf.get(node.name))));
    for (const element of box.querySelectorAll(".node")) {
      const { node } = element;
      element.classList.toggle("hit", hits.has(node));
      element.classList.toggle("way", this.way.has(node.item));
      element.classList.toggle("beside", besides.has(node));
      element.classList.toggle("selected", Boolean(selected) && node.item === selected);
      if (node.item) element.setAttribute("aria-pressed", String(node.item === selected));
    }
    const mine = selected && this.leaf.get(selected.name);
    this.canvas.selectAll(".edge").classed("beside", (edge) => edge.from === mine || edge.to === mine);
  },

  fit() {
    if (!this.laid || !$("graph").clientWidth) return;
    const [w, h] = [$("graph").clientWidth, $("graph").clientHeight];
    const box = this.canvas.node().getBBox();
    if (!box.width) return;
    // Small pictures are not blown up; of large ones, the part with the entry point can be read.
    const whole = Math.min(1.1, (w - 24) / box.width, (h - 24) / box.height);
    const scale = Math.max(whole, 0.72);
    const x = box.width * scale < w ? (w - box.width * scale) / 2 : 12;
    const y = box.height * scale < h ? (h - box.height * scale) / 2 : 12;
    this.svg.call(this.zoom.transform, lib.zoomIdentity.translate(x - box.x * scale, y - box.y * scale).scale(scale));
    if (whole >= scale) return;
    const chosen = this.canvas.select(".node.selected").node();
    if (!chosen) {
      this.bring(this.startNode());
      return;
    }
    // The whole way, or else its end.
    const way = this.canvas.selectAll(".node.way, .node.selected").nodes().map(({ node }) => this.laid.node(node.id));
    const middle = (of, extent) => {
      const [from, to] = [Math.min(...way.map((n) => n[of] - n[extent] / 2)), Math.max(...way.map((n) => n[of] + n[extent] / 2))];
      const room = (of === "x" ? w : h) / scale;
      return to - from < room - 24 ? (from + to) / 2 : this.laid.node(chosen.node.id)[of];
    };
    this.svg.call(this.zoom.translateTo, middle("x", "width"), middle("y", "height"));
  },

  startNode() {
    const leaf = this.leaf.get(current.address);
    return [...$("graph").querySelectorAll(".node")].find((element) => element.node === leaf);
  },

  /** Move the picture so that an element is in sight. */
  bring(element) {
    if (!element) return;
    const box = element.getBoundingClientRect();
    const frame = $("graph").getBoundingClientRect();
    const dx = outside(box.left, box.right, frame.left + 16, frame.right - 16);
    const dy = outside(box.top, box.bottom, frame.top + 16, frame.bottom - 16);
    if (!dx && !dy) return;
    const { k } = this.svg.node().__zoom;
    this.svg.call(this.zoom.translateBy, dx / k, dy / k);
  },
};

function outside(from, to, least, most) {
  return from < least ? least - from : to > most ? Math.max(most - to, least - from) : 0;
}

function depthOf(node) {
  return node.parent ? 1 + depthOf(node.parent) : 0;
}

function cut(text, longest) {
  return text.length > longest ? `${text.slice(0, longest - 1)}\u2026` : text;
}
