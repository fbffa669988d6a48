// Bundles of the package's scripts, and their format: "build", "format", or "check" of both.
import { createFromBuffer } from "@dprint/formatter";
import { getPath } from "@dprint/typescript";
import { build } from "esbuild";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const VIEWER = "sparsity_report/viewer";
const FOLDERS = [".ci", ".", VIEWER, `${VIEWER}/page`];
const STYLE = { lineWidth: 100, preferHanging: true, preferSingleLine: true, newLineKind: "lf",
  quoteStyle: "preferDouble", "arrowFunction.useParentheses": "force" };

async function bundles() {
  const { outputFiles } = await build({
    entryPoints: { viewer: `${VIEWER}/main.js`, fragment: `${VIEWER}/fragment.js`,
      page: `${VIEWER}/page/page.js` },
    bundle: true,
    minify: true,
    write: false,
    format: "iife",
    charset: "utf8",
    target: "es2022",
    outdir: `${VIEWER}/bundle`,
  });
  return outputFiles.map(({ path, text }) => [path, text]);
}

function formatted() {
  const formatter = createFromBuffer(readFileSync(getPath()));
  formatter.setConfig({ indentWidth: 2, useTabs: false }, STYLE);
  const sources = FOLDERS.flatMap((folder) =>
    readdirSync(folder).filter((name) => /\.(js|d\.ts)$/.test(name)).map((name) =>
      `${folder}/${name}`
    )
  );
  return sources.map((filePath) => {
    const fileText = readFileSync(filePath, "utf8");
    return [filePath, formatter.formatText({ filePath, fileText })];
  });
}

const [command] = process.argv.slice(2);
const files = command === "format"
  ? formatted()
  : command === "build"
  ? await bundles()
  : [...formatted(), ...await bundles()];
for (const [path, text] of files) {
  if (command !== "check") writeFileSync(path, text);
  else if (readFileSync(path, "utf8") !== text) {
    console.error(`${path}: not as "npm run format" and "npm run build" write it`);
    process.exitCode = 1;
  }
}
