// What the page knows: the document, unpacked; and how names and numbers are shown.

const DOCUMENT = JSON.parse(document.getElementById("data").textContent);
const NAMES = DOCUMENT.names;
const PACKED = DOCUMENT.artifacts.some((one) => one.files.packed); // whether it was packed
const HOLDS = "holds"; // a target of several files, and one of them

const REASONS = {
  all: 'copy_style="all"',
  copied: "copied by a field of the image",
  declared: "declared",
  entry_point: "entry point",
  holds: "one of its files",
  imported: "imported",
  package: "package above",
};

const said = (reason) => REASONS[reason] ?? shown(reason);

/** A name with escapes for what cannot be seen, or turns the text around it. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;
function shown(text) {
  return text.replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** As `flyte-explain` writes sizes: powers of 1000. */
function bytes(count) {
  if (count < 1000) return `${count} B`;
  if (count < 999950) return `${(count / 1e3).toFixed(1)} kB`;
  return `${commas((count / 1e6).toFixed(1))} MB`;
}

/** What a size is in the archive or layer, where that is known. */
const packedAs = (count, before, after = "") => (count === null || count === undefined ? "" : `${before}${bytes(count)}${after}`);

/** Wheels of distributions, as `flyte-explain` says it; null where the lock file has no sizes. */
function wheels(weight, what = "") {
  if (!weight) return null;
  if (weight.unknown === weight.distributions) return "unknown";
  return `${bytes(weight.size)}${what}${weight.unknown ? `, ${commas(weight.unknown)} unknown` : ""}`;
}

const commas = (number) => String(number).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
const counted = (count, what) => `${commas(count)} ${what}${count === 1 ? "" : "s"}`;
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "0 %");

/** An artifact of the document with its files, the graph, and what finds them by name. */
function unpacked(raw) {
  const { path, source, owner, library, kind, size, packed, step } = raw.files;
  const name = (number) => (number < 0 ? null : NAMES[number]);
  const steps = [];
  for (let at = 0; at < raw.steps.length; at += 3) {
    steps.push({ name: name(raw.steps[at]), reason: name(raw.steps[at + 1]), before: raw.steps[at + 2] });
  }
  const nodes = new Map(); // what the graph has, by name: files, requirements, other targets
  const files = path.map((_, at) => {
    const file = {
      path: name(path[at]),
      name: name(source[at]),
      owner: name(owner[at]),
      library: name(library[at]) ?? "(no owner)",
      kind: name(kind[at]),
      size: size[at],
      packed: packed?.[at] ?? null,
      step: step[at],
    };
    file.text = `${file.path}\n${file.name}\n${file.owner ?? ""}`.toLowerCase();
    if (!nodes.has(file.name)) nodes.set(file.name, { name: file.name, label: file.path, size: file.size, file, out: [], into: [] });
    return file;
  });
  const node = (called) => {
    if (!nodes.has(called)) nodes.set(called, { name: called, label: called, size: 0, out: [], into: [] });
    return nodes.get(called);
  };
  const needs = new Map();
  for (const one of raw.requirements) {
    const target = name(one.target);
    needs.set(target, [...(needs.get(target) ?? []), one]);
  }
  for (const [target, all] of needs) {
    const made = node(target);
    made.label = all.map((one) => one.requirement).join(", ");
    made.requirement = all;
    made.text = `${made.label}\n${target}`.toLowerCase();
  }
  for (let at = 0; at < raw.edges.length; at += 3) {
    const edge = { from: node(name(raw.edges[at])), to: node(name(raw.edges[at + 1])), reason: name(raw.edges[at + 2]) };
    edge.from.out.push(edge);
    edge.to.into.push(edge);
  }
  const stepOf = new Map(files.map((file) => [file.name, file.step]));
  const wayOf = (called) => {
    const way = [];
    for (let at = stepOf.get(called) ?? -1; at >= 0; at = steps[at].before) way.unshift(steps[at]);
    if (!way.length && needs.has(called)) {
      const [nearest] = needs.get(called)[0].needed_by;
      const edge = nodes.get(called).into.find(({ from }) => from.name === name(nearest));
      if (edge) way.push(...wayOf(edge.from.name), { name: called, reason: edge.reason });
    }
    return way;
  };
  for (const file of files) {
    let length = 0;
    for (let at = file.step; at >= 0; at = steps[at].before) length += 1;
    file.length = length;
    file.reason = file.step < 0 ? "" : steps[file.step].reason;
  }
  return { ...raw, files, nodes, needs, wayOf, name };
}

/** A tree of folders, of layers, or of the targets that own files; a folder with nothing but a folder is one. */
function treeOf(items, placeOf) {
  const root = { name: "", path: "", children: new Map() };
  for (const item of items) {
    const parts = placeOf(item);
    let at = root;
    for (const part of parts.slice(0, -1)) {
      if (!at.children.has(part)) {
        at.children.set(part, { name: part, path: at.path ? `${at.path}/${part}` : part, children: new Map() });
      }
      at = at.children.get(part);
    }
    at.children.set(`${parts[parts.length - 1]}\n${item.name}`, { name: parts[parts.length - 1], item });
  }
  return summed(root, null);
}

function summed(folder, parent) {
  let children = [...folder.children.values()];
  while (parent && children.length === 1 && !children[0].item) {
    folder = { ...children[0], name: `${folder.name}/${children[0].name}` };
    children = [...folder.children.values()];
  }
  const made = { name: folder.name, path: folder.path, parent, size: 0, packed: 0, count: 0 };
  made.children = children.map((child) => {
    if (child.children) return summed(child, made);
    const { name, path = name, size, packed, count = 1 } = child.item;
    return { name: child.name, path, item: child.item, parent: made, size: size ?? 0, packed: packed ?? 0, count };
  });
  for (const child of made.children) {
    made.size += child.size;
    made.packed += child.packed;
    made.count += child.count;
  }
  return made;
}
