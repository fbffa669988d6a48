// Download of charts on a white background.
import { choices, download, fileName, raster, setAttributes, svgFile } from "../elements.js";
import { words } from "./words.js";

const [SCALE, COLUMNS, GAP, EDGE] = [2, 3, 16, 8];
const CHARTS = ":not(.sparsity-viewer) > .plate > figure, .multiples";

// Return charts as one SVG: the first alone, the others in columns below.
function asSvg(figures, style = "") {
  const description = figures.map((figure) => figure.getAttribute("aria-label")).join(" ");
  let [x, y, width, bottom] = [EDGE, EDGE, 0, 0];
  const charts = figures.map((figure, place) => {
    const copy = figure.querySelector("svg").cloneNode(true);
    const [wide, high] = ["width", "height"].map((side) => Number(copy.getAttribute(side)));
    if (place % COLUMNS === 1) [x, y] = [EDGE, bottom + GAP];
    setAttributes(copy, { x, y, overflow: "visible" });
    width = Math.max(width, x + wide);
    bottom = Math.max(bottom, y + high);
    x += wide + GAP;
    return copy;
  });
  return svgFile(charts, { description, width: width + EDGE, height: bottom + EDGE, fill: "white",
    style });
}

// Add a list of files to every chart; small ones side by side are one picture with their color bar.
export function addPictures() {
  for (const place of document.querySelectorAll(CHARTS)) {
    const rows = [place.previousElementSibling, place];
    const inside = rows.filter((part) => part?.matches(".colors, .multiples"));
    const figures = inside.length
      ? inside.flatMap((part) => [...part.querySelectorAll("figure")])
      : [place];
    const save = async (kind) => {
      // A PNG has the fonts of the page.
      const content = kind === "svg"
        ? asSvg(figures)
        : await raster(asSvg(figures, document.querySelector("style").textContent), SCALE);
      const title = document.querySelector(".kicker bdi").textContent;
      const name = `${title} ${figures[0].id.replace(/-figure$/, "")}`;
      download(new Blob([content]), `${fileName(name)}.${kind}`);
    };
    const kinds = ["SVG", "PNG"].map((kind) => [kind.toLowerCase(), kind]);
    place.after(choices("tools", words.save, "", [["", kinds]], save));
  }
}
