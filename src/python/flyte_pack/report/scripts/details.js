// One file, requirement or target, and how the entry point leads to it; the whole, where nothing is
// selected. And what each direct dependency costs.

const FEW = 12; // of a list that is told at once

const details = {
  start() {
    $("details").addEventListener("click", (event) => {
      if (event.target.closest(".close")) select(null);
    });
  },

  show() {
    const node = current.nodes.get(state.selected);
    $("details").replaceChildren(...(node ? this.of(node) : this.whole()));
    document.body.classList.toggle("chosen", Boolean(node));
    if (node) $("details").scrollTop = 0;
  },

  of(node) {
    const way = current.wayOf(node.name);
    const { file } = node;
    const facts = file
      ? [
          ["Size", `${bytes(file.size)}, ${percent(file.size, current.size)} of all`],
          ...(file.packed === null ? [] : [["Packed", bytes(file.packed)]]),
          ["Kind", file.kind],
          ["Owner", shown(file.owner ?? "none: it lies beside what is owned")],
          ...(file.path === file.name ? [] : [["In the repository", shown(file.name)]]),
        ]
      : node.requirement
        ? [["Kind", "third-party requirement"], ["Target", shown(node.name)]]
        : [["Kind", "target"]];
    return [
      make(
        "div",
        { class: "head" },
        make("h2", {}, make("bdi", {}, shown(node.label))),
        make("button", { type: "button", class: "close", "aria-label": "Close the details" }, "\u00d7"),
      ),
      make("dl", {}, ...facts.flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, make("bdi", {}, text))])),
      make("h3", {}, "The way from the entry point"),
      way.length ? this.way(way) : make("p", {}, "Nothing leads to it: it is there for itself."),
      ...this.others("Needs", node.out, (edge) => edge.to),
      ...this.others("Needed by", node.into, (edge) => edge.from),
    ];
  },

  way(way) {
    return make(
      "ol",
      { class: "steps", id: "way" },
      ...way.map((step, at) => {
        const last = at === way.length - 1;
        const link = linkTo(step.name, current.nodes.get(step.name)?.label ?? step.name);
        if (last) link.setAttribute("aria-current", "true");
        return make("li", {}, link, make("span", { class: `reason r-${step.reason}` }, said(step.reason)));
      }),
    );
  },

  others(title, edges, end) {
    const ends = new Map(edges.map((edge) => [end(edge), edge.reason]));
    if (!ends.size) return [];
    const rows = [...ends].map(([node, reason]) =>
      make("li", {}, linkTo(node.name, node.label), make("span", { class: `reason r-${reason}` }, said(reason))),
    );
    const list = make("ul", { class: "others" }, ...rows.slice(0, FEW));
    const more = make("button", { type: "button", class: "more" }, `${commas(rows.length - FEW)} more`);
    more.addEventListener("click", () => {
      list.append(...rows.slice(FEW));
      more.remove();
      rows[FEW].querySelector("a").focus();
    });
    return [make("h3", {}, `${title} (${commas(ends.size)})`), list, rows.length > FEW ? more : null].filter(Boolean);
  },

  whole() {
    const largest = [...current.files].sort((a, b) => b.size - a.size || byText(a.path, b.path)).slice(0, 8);
    const most = largest[0]?.size ?? 0;
    return [
      make("h2", {}, "Nothing is selected"),
      make("p", { class: "hint" }, "Choose a file, and see the way from the entry point that brings it."),
      ...(largest.length ? [make("h3", {}, "The largest files")] : []),
      bars(largest.map((file) => ({ name: linkTo(file.name, file.path), size: file.size, most, text: bytes(file.size) }))),
    ];
  },
};

/** Rows with a bar for each size. */
function bars(rows) {
  return make(
    "ul",
    { class: "bars" },
    ...rows.map(({ name, size, most, text }) => {
      const bar = make("span", { class: "bar", "aria-hidden": "true" });
      bar.style.width = `${most ? Math.max(0.5, (100 * size) / most) : 0}%`;
      return make("li", {}, name, make("span", { class: "text" }, text), bar);
    }),
  );
}

const costs = {
  show() {
    const direct = current.direct.filter((one) => one.files || one.requirements.length);
    const most = Math.max(0, ...direct.map((one) => one.size));
    const saved = bars(
      direct.map((one) => {
        const weight = one.wheels ? ` (${wheels(one.wheels, " as wheels")})` : "";
        const needs = one.requirements.length ? `, and the need of ${one.requirements.map(shown).join(", ")}${weight}` : "";
        const text = `${bytes(one.size)}${packedAs(one.packed, " (packed ", ")")} in ${counted(one.files, "file")}${needs}`;
        return { name: make("bdi", { class: "name" }, shown(one.name)), size: one.size, most, text };
      }),
    );
    const sized = current.requirements.some((one) => one.wheels);
    const heads = ["Requirement", sized ? "Wheels" : null, "Needed by", "Target"].filter(Boolean);
    const wanted = current.requirements.map((one) => {
      const target = current.name(one.target);
      const by = one.needed_by.map((number) => current.nodes.get(current.name(number))).filter(Boolean);
      const few = by.slice(0, 3).flatMap((node, at) => [at ? ", " : null, linkTo(node.name, node.label)]);
      const more = by.length > 3 ? ` and ${commas(by.length - 3)} more` : null;
      return make(
        "tr",
        {},
        make("th", { scope: "row" }, linkTo(target, one.requirement)),
        sized ? make("td", { class: "number" }, wheels(one.wheels) ?? "unknown") : null,
        make("td", {}, ...few.filter(Boolean), more),
        make("td", { class: "owner" }, make("bdi", {}, shown(target))),
      );
    });
    $("view-costs").replaceChildren(
      make("h2", {}, "What only one direct dependency of the entry point brings"),
      direct.length
        ? make("p", { class: "hint" }, "Without it, this much would not ship; what two of them share counts for neither.")
        : make("p", { class: "hint" }, "No dependency brings anything that nothing else needs."),
      saved,
      make("h2", {}, "Third-party requirements"),
      wanted.length
        ? make(
            "div",
            { class: "scroller" },
            make(
              "table",
              {},
              make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
              make("tbody", {}, ...wanted),
            ),
          )
        : make("p", { class: "hint" }, "It needs none."),
      sized ? make("p", { class: "hint" }, `With all that they bring: ${wheels(current.wheels)}, as the lock file says.`) : "",
    );
  },
};
