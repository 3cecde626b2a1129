// Writes entry.mjs, with all that it imports, as one minified script to standard output; to standard
// error, the names of the packages that are in it.
import { isAbsolute } from "node:path";
import { fileURLToPath } from "node:url";

import { rollup } from "@rollup/wasm-node";
import { minify } from "terser";

const packages = {
  name: "packages",
  resolveId: (id) => (/^[./]/.test(id) || isAbsolute(id) ? null : fileURLToPath(import.meta.resolve(id))),
};
const bundle = await rollup({
  input: "./entry.mjs",
  plugins: [packages],
  // A module that imports itself in a circle is d3's own affair; a missing one is an error.
  onLog: (level, log) => {
    if (log.code !== "CIRCULAR_DEPENDENCY") throw new Error(log.message);
  },
});
const { output } = await bundle.generate({ format: "iife", name: "lib" });
await bundle.close();
const { code } = await minify(output[0].code, { ecma: 2020, format: { ascii_only: true, comments: false } });
const names = Object.keys(output[0].modules).map((id) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(id)?.[1]);
process.stderr.write([...new Set(names.filter(Boolean))].sort().join("\n"));
process.stdout.write(code + "\n");
