// The layers of an image that was packed, and what each has of which distribution or target.

const layers = {
  any: DOCUMENT.artifacts.some((one) => one.layers),

  show() {
    const platforms = [...new Set((current.layers ?? []).map((layer) => layer.platform))];
    const told = platforms.flatMap((platform) => this.of(platform, current.layers.filter((layer) => layer.platform === platform)));
    $("view-layers").replaceChildren(...(told.length ? told : [make("p", { class: "hint" }, "It is no image, and has no layers.")]));
  },

  of(platform, all) {
    const most = Math.max(...all.map((layer) => layer.packed));
    const heads = ["Layer, and what it has", "Packed", "On disk", "Files"].map((name, at) =>
      make("th", { scope: "col", class: at ? "number" : null }, name),
    );
    const bodies = all.map((layer) =>
      make(
        "tbody",
        {},
        this.row(layer.what, layer, most, "layer"),
        ...partsOf(layer).map((part) => this.row(part.label, part, most, "part")),
      ),
    );
    return [
      make("h2", {}, make("bdi", {}, shown(platform)), `: packed ${bytes(sumOfLayers(all))}`),
      make("p", { class: "hint" }, "The lowest first. Of a layer of the base, only its packed size is known."),
      make("div", { class: "scroller", tabindex: "0", role: "group", "aria-label": `Layers on ${shown(platform)}` }, make("table", { class: "layers" }, make("thead", {}, make("tr", {}, ...heads)), ...bodies)),
    ];
  },

  row(name, { packed, size, files }, most, kind) {
    const bar = make("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${most ? Math.max(0.5, (100 * packed) / most) : 0}%`;
    return make(
      "tr",
      { class: kind },
      make("th", { scope: "row" }, make("bdi", { class: "name" }, shown(name)), bar),
      make("td", { class: "number" }, bytes(packed)),
      make("td", { class: "number" }, size === null ? "" : bytes(size)),
      make("td", { class: "number" }, files === null ? "" : commas(files)),
    );
  },
};

/** What a layer has, unless its name says that. */
function partsOf(layer) {
  const named = (layer.parts ?? []).map((part) => ({ ...part, label: `${part.name} ${part.version}`.trim() || "other files" }));
  const those = named.filter((part) => part.name);
  if (!those.length) return [];
  return those.length === 1 && layer.what.split(",")[0] === those[0].label ? named.filter((part) => !part.name) : named;
}

/** Leaves of a tree: the parts of layers, or layers with no parts of their own. */
function leavesOf(all) {
  const several = new Set(all.map((layer) => layer.platform)).size > 1;
  return all.flatMap((layer, at) => {
    const above = several ? [layer.platform] : [];
    const leaf = (part, label, place) => ({
      name: `layer ${at}: ${label}`,
      path: label,
      place: [...above, ...place],
      kind: part.kind ?? "layer",
      size: part.size,
      packed: part.packed,
      count: part.files ?? 0,
      of: layer,
    });
    const parts = partsOf(layer);
    if (!parts.length) return [leaf(layer, layer.what, [layer.what])];
    return parts.map((part) => leaf(part, part.label, [layer.what, part.label]));
  });
}

const sumOfLayers = (all) => all.reduce((sum, layer) => sum + layer.packed, 0);
