// Bundles the parts of Observable Plot that plot.js names, and gathers the licences of all that went in.
import {build} from "esbuild";
import {createHash} from "node:crypto";
import {readFileSync, readdirSync, writeFileSync} from "node:fs";

const assets = "../../src/counterpoise/report/assets";
const {metafile} = await build({
  entryPoints: ["plot.js"],
  outfile: `${assets}/plot.min.js`,
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "Plot",
  target: "es2020",
  legalComments: "none",
  metafile: true,
});
const used = Object.values(metafile.outputs)[0].inputs;
const packages = new Set(
  Object.entries(used)
    .filter(([, input]) => input.bytesInOutput > 0)
    .map(([path]) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1])
    .filter(Boolean),
);
const texts = [...packages].sort().map((name) => {
  const folder = `node_modules/${name}`;
  const {version, license} = JSON.parse(readFileSync(`${folder}/package.json`));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  return `${name} ${version} (${license})\n\n${readFileSync(`${folder}/${file}`, "utf8").trim()}\n`;
});
const sha256 = createHash("sha256").update(readFileSync(`${assets}/plot.min.js`)).digest("hex");
const head = `Licences of what plot.min.js is made of (tools/charts makes it; its sha256 is\n${sha256}):\n`;
writeFileSync(`${assets}/plot.LICENSES.txt`, [head, ...texts].join(`\n${"-".repeat(80)}\n\n`));
