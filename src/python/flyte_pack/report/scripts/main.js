// The page as a whole: what is chosen, searched and shown. The address behind `#` has it, so that the
// browser's way back works, and a link to the page can name a file.

const VIEWS = [
  { name: "sizes", title: "Sizes", part: treemap },
  { name: "imports", title: "Imports", part: graph },
  { name: "files", title: "Files", part: table },
  { name: "costs", title: "Dependencies", part: costs },
  ...(layers.any ? [{ name: "layers", title: "Layers", part: layers }] : []),
  ...(changes.any ? [{ name: "changes", title: "Changes", part: changes }] : []),
];

const state = { artifact: 0, view: "sizes", selected: null };
let current = null;
const known = new Map(); // artifacts that were unpacked

function addressOf(change) {
  const { artifact, view, selected } = { artifact: state.artifact, view: null, ...change };
  const parts = new URLSearchParams();
  if (DOCUMENT.artifacts.length > 1) parts.set("artifact", artifact);
  if (view) parts.set("view", view);
  if (selected) parts.set("file", selected);
  return `#/${parts}`; // with a slash it is no link to a part of the page
}

/** Take a change, show it, and have it in the address. */
function go(change) {
  const address = addressOf({ ...state, ...change });
  if (address === location.hash) render(change);
  else {
    history.pushState(null, "", address);
    render(change);
  }
}

const select = (name) => go({ selected: name });

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(2));
  const artifact = Number(parts.get("artifact"));
  const view = parts.get("view");
  return {
    artifact: DOCUMENT.artifacts[artifact] ? artifact : state.artifact,
    view: VIEWS.some(({ name }) => name === view) ? view : state.view,
    selected: parts.get("file"),
  };
}

function render(change) {
  const before = { ...state, current };
  Object.assign(state, change);
  if (!known.has(state.artifact)) known.set(state.artifact, unpacked(DOCUMENT.artifacts[state.artifact]));
  current = known.get(state.artifact);
  if (current !== before.current) {
    heading();
    search.look();
  }
  details.show();
  showView(current !== before.current || state.view !== before.view || state.selected !== before.selected);
  const node = current.nodes.get(state.selected);
  if (node && state.selected !== before.selected) {
    const steps = current.wayOf(node.name).length;
    $("status").textContent = `${shown(node.label)}: ${counted(steps, "step")} from the entry point`;
    // On a phone the details cover what is below.
    if (narrow.matches) ($(`view-${state.view}`).querySelector(".treemap, .graph, .scroller") ?? $("details")).scrollIntoView();
  } else search.tell();
}

function heading() {
  $("title").replaceChildren(make("bdi", {}, shown(current.address)));
  const packed = current.packed ?? (current.layers ? sumOfLayers(current.layers) : null);
  const style = current.copy_style ? `, copy_style="${current.copy_style}"` : "";
  $("summary").textContent = `${counted(current.files.length, "file")}, ${bytes(current.size)}${packedAs(packed, ", packed ")}, ${counted(current.requirements.length, "third-party requirement")}${style}`;
  $("artifact").value = String(state.artifact);
}

function showView(changed) {
  for (const { name, part } of VIEWS) {
    const here = name === state.view;
    const tab = $(`tab-${name}`);
    tab.setAttribute("aria-selected", String(here));
    tab.tabIndex = here ? 0 : -1;
    if (here && narrow.matches) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    $(`view-${name}`).hidden = !here;
    if (here && changed) part.show();
  }
}

const MOST = 8; // matches in the list below the search

const search = {
  query: "",
  hits: new Set(),
  best: [],
  at: -1,

  start() {
    const input = $("search");
    input.addEventListener("input", () => {
      this.query = input.value.trim().toLowerCase();
      this.look();
      this.list(Boolean(this.query));
      this.tell();
      if (state.view === "files") table.show();
      else VIEWS.find(({ name }) => name === state.view).part.mark?.();
    });
    input.addEventListener("keydown", (event) => {
      const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (move && this.best.length) {
        event.preventDefault();
        if ($("found").hidden) this.list(true);
        this.choose((this.at + move + this.best.length) % this.best.length);
      } else if (event.key === "Enter" && this.best.length) {
        this.take(this.best[Math.max(0, this.at)]);
      } else if (event.key === "Escape") {
        if (!$("found").hidden) {
          event.preventDefault();
          this.list(false);
        }
      }
    });
    input.addEventListener("focus", () => this.list(Boolean(this.query)));
    input.addEventListener("blur", () => this.list(false));
    $("found").addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the input keeps the focus
      const option = event.target.closest("[role=option]");
      if (option) this.take(option.node);
    });
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest?.("input:not([type=radio], [type=checkbox]), select, textarea");
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        input.focus();
        input.select();
      }
    });
  },

  /** Find all files and requirements with each of the words. */
  look() {
    const words = this.query.split(/\s+/).filter(Boolean);
    const fits = (text) => words.every((word) => text.includes(word));
    this.hits = new Set(words.length ? current.files.filter((file) => fits(file.text)) : []);
    const required = words.length ? [...current.needs.keys()].map((name) => current.nodes.get(name)).filter((node) => fits(node.text)) : [];
    this.required = new Set(required);
    // Names that begin with what was typed come first, then short ones.
    const rank = ({ label }) => (label.toLowerCase().startsWith(words[0], label.lastIndexOf("/") + 1) ? 0 : 1e6) + label.length;
    const best = [];
    for (const node of [...required, ...[...this.hits].map((file) => current.nodes.get(file.name))]) {
      const ranked = [rank(node), node];
      if (best.length === MOST && ranked[0] >= best[MOST - 1][0]) continue;
      best.push(ranked);
      best.sort(([a, x], [b, y]) => a - b || byText(x.label, y.label));
      best.length = Math.min(best.length, MOST);
    }
    this.best = best.map(([, node]) => node);
    this.at = -1;
  },

  has(node) {
    return this.hits.has(node.file) || this.required.has(node);
  },

  list(open) {
    const list = $("found");
    list.hidden = !open || !this.best.length;
    $("search").setAttribute("aria-expanded", String(!list.hidden));
    list.replaceChildren(
      ...this.best.map((node, at) => {
        const what = node.file ? bytes(node.size) : "requirement";
        const option = make("li", { role: "option", id: `found-${at}`, "aria-selected": "false" }, make("bdi", { class: "name" }, shown(node.label)), make("span", { class: "text" }, what));
        option.node = node;
        return option;
      }),
    );
    this.choose(open ? this.at : -1);
  },

  choose(at) {
    this.at = at;
    [...$("found").children].forEach((option, of) => option.setAttribute("aria-selected", String(of === at)));
    if (at >= 0) $("search").setAttribute("aria-activedescendant", `found-${at}`);
    else $("search").removeAttribute("aria-activedescendant");
  },

  take(node) {
    this.list(false);
    select(node.name);
  },

  tell() {
    if (!this.query) {
      $("status").textContent = "";
      return;
    }
    let size = 0;
    for (const file of this.hits) size += file.size;
    const required = this.required.size ? `, and ${counted(this.required.size, "requirement")}` : "";
    $("status").textContent = `${commas(this.hits.size)} of ${counted(current.files.length, "file")} match${required}, ${bytes(size)}`;
  },
};

function tabs() {
  for (const { name, title } of VIEWS) {
    const tab = make("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `view-${name}` }, title);
    tab.addEventListener("click", () => go({ view: name }));
    $("tabs").append(tab);
  }
  $("tabs").addEventListener("keydown", (event) => {
    const at = VIEWS.findIndex(({ name }) => name === state.view);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: VIEWS.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const { name } = VIEWS[(to + VIEWS.length) % VIEWS.length];
    go({ view: name });
    $(`tab-${name}`).focus();
  });
}

/** A selector, where there are several artifacts; below the deployments that have them. */
function choices() {
  const groups = [];
  const options = DOCUMENT.artifacts.map((one, at) => make("option", { value: String(at) }, shown(one.address)));
  const left = new Set(options);
  for (const { address, artifacts } of DOCUMENT.deployments) {
    const mine = options.filter((option, at) => left.has(option) && artifacts.includes(DOCUMENT.artifacts[at].address));
    mine.forEach((option) => left.delete(option));
    if (mine.length) groups.push(make("optgroup", { label: shown(address) }, ...mine));
  }
  $("artifact").append(...groups, ...left);
  $("choice").hidden = options.length < 2;
  $("artifact").addEventListener("change", () => go({ artifact: Number($("artifact").value), selected: null }));
}

/** What `--why` asked for is selected; what is not there is said. */
function answer() {
  const answers = DOCUMENT.why ?? [];
  const byOthers = ({ ways: [way] }) => !way || way[way.length - 1].reason === "required"; // it is in no picture
  const told = answers
    .filter((one) => !one.found || byOthers(one))
    .map(({ address, found, ways, why_not: whyNot }) =>
      found
        ? `${address} needs ${DOCUMENT.asked}${ways.length ? `: ${ways[0].map((step) => step.name).join(" -> ")}` : ""}`
        : `${address} does not have ${DOCUMENT.asked}: ${whyNot}`,
    );
  $("answer").hidden = !told.length;
  $("answer").append(...told.map((text) => make("span", {}, shown(text))));
  const found = answers.find((one) => one.ways.length);
  if (!found) return {};
  const artifact = DOCUMENT.artifacts.findIndex((one) => one.address === found.address);
  const way = found.ways[0].filter((step) => step.reason !== "required");
  return { artifact: Math.max(0, artifact), view: "imports", selected: way[way.length - 1].name };
}

function start() {
  const asked = answer();
  if (!DOCUMENT.artifacts.length) {
    $("title").textContent = "Nothing that ships";
    $("summary").textContent = "None of the targets is one that flyte-explain knows.";
    return;
  }
  tabs();
  choices();
  search.start();
  details.start();
  for (const part of [treemap, graph, table]) part.start();
  render({ ...asked, ...(location.hash.length > 1 ? readAddress() : {}) });
  window.addEventListener("hashchange", () => {
    render(readAddress());
    history.replaceState(null, "", addressOf(state));
  });
  window.addEventListener("popstate", () => render(readAddress()));
}

start();
