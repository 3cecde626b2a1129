// Small things that all views share: making elements, moving the focus, the tooltip.

const $ = (id) => document.getElementById(id);

const narrow = matchMedia("(max-width: 899px)"); // as page.css has it

/** An element with properties and children; texts stay texts. */
function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A link that selects a node of the graph. */
function linkTo(name, label = name) {
  return make("a", { href: addressOf({ selected: name }), class: "name" }, make("bdi", {}, shown(label)));
}

/** One element of several can be reached with Tab; arrow keys go to the nearest in their direction. */
function roving(container, selector) {
  container.addEventListener("keydown", (event) => {
    const ahead = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    const from = event.target.closest?.(selector);
    if (!ahead || !from || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const [x, y] = middle(from);
    let best = null;
    let least = Infinity;
    for (const to of container.querySelectorAll(selector)) {
      const [tx, ty] = middle(to);
      const along = (tx - x) * ahead[0] + (ty - y) * ahead[1];
      const aside = Math.abs((tx - x) * ahead[1]) + Math.abs((ty - y) * ahead[0]);
      const far = along + 2.5 * aside;
      if (to !== from && along > 1 && far < least) [best, least] = [to, far];
    }
    if (best) reach(container, selector, best).focus();
  });
  container.addEventListener("focusin", (event) => {
    const to = event.target.closest(selector);
    if (to) reach(container, selector, to);
  });
}

function middle(element) {
  const box = element.getBoundingClientRect();
  return [box.left + Math.min(box.width, 120) / 2, box.top + Math.min(box.height, 60) / 2];
}

/** Make `to`, or else the first, the one that Tab reaches. */
function reach(container, selector, to = null) {
  for (const one of container.querySelectorAll(`${selector}[tabindex="0"]`)) one.setAttribute("tabindex", "-1");
  const reached = to ?? container.querySelector(selector);
  reached?.setAttribute("tabindex", "0");
  return reached;
}

/** Lines to show beside whatever the pointer or the focus is on. */
function explains(container, selector, linesOf) {
  const tip = $("tip");
  const show = (event) => {
    const on = event.target.closest?.(selector);
    const lines = on && container.contains(on) ? linesOf(on) : null;
    tip.hidden = !lines;
    if (!lines) return;
    tip.replaceChildren(...lines.map((line, at) => make(at ? "span" : "strong", {}, make("bdi", {}, line))));
    const box = on.getBoundingClientRect();
    const keyed = event.type === "focusin";
    const x = keyed ? box.left : event.clientX + 14;
    const y = keyed ? Math.min(box.bottom, innerHeight) + 4 : event.clientY + 16;
    const { offsetWidth: w, offsetHeight: h } = tip;
    tip.style.left = `${Math.max(4, Math.min(x, innerWidth - w - 8))}px`;
    tip.style.top = `${y + h + 8 > innerHeight ? Math.max(4, (keyed ? box.top : event.clientY) - h - 10) : y}px`;
  };
  container.addEventListener("pointermove", show);
  container.addEventListener("focusin", (event) => {
    if (event.target.matches?.(":focus-visible")) show(event);
  });
  for (const end of ["pointerleave", "focusout", "pointerdown"]) {
    container.addEventListener(end, () => {
      tip.hidden = true;
    });
  }
}

/** What a file is, in lines. */
function about(file, whole) {
  return [
    shown(file.path),
    `${bytes(file.size)}, ${percent(file.size, whole)} of all${packedAs(file.packed, ", packed ")}`,
    `${file.kind}, ${said(file.reason)}`,
    shown(file.owner ?? "no owner"),
  ];
}
