// What the page of `flyte-explain --format=html` uses of its libraries, as the global `lib`.
export { hierarchy, treemap, treemapSquarify } from "d3-hierarchy";
export { select } from "d3-selection";
export { curveBasis, line } from "d3-shape";
export { zoom, zoomIdentity } from "d3-zoom";
export { Graph, layout } from "@dagrejs/dagre";
