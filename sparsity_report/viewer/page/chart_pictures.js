// Download of a chart on a white background.
import { download, fileName, make } from "../elements.js";
import { words } from "./words.js";

// Small charts side by side become one picture with their color bar.
export class Picture {
  static SCALE = 2;
  static COLUMNS = 3;
  static GAP = 16;
  static EDGE = 8;

  // Create a picture for every chart that is not part of another picture.
  static all() {
    for (const place of document.querySelectorAll(
      ":not(.sparsity-viewer) > .plate > figure, .multiples",
    )) new Picture(place);
  }

  constructor(place) {
    const rows = [place.previousElementSibling, place].filter((part) =>
      part?.matches(".colors, .multiples")
    );
    this.figures = rows.length
      ? rows.flatMap((part) => [...part.querySelectorAll("figure")])
      : [place];
    place.after(menu(words.save, { SVG: () => this.save("svg"), PNG: () => this.save("png") }));
  }

  async save(kind) {
    const blob = kind === "svg" ? this.svg() : await this.png();
    const name = `${document.querySelector(".kicker bdi").textContent} ${
      this.figures[0].id.replace(/-figure$/, "")
    }`;
    download(blob, `${fileName(name)}.${kind}`);
  }

  // Return the charts as one SVG: the first alone, the others in columns below.
  svg(style = "") {
    const drawn = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const part = (tag, text, attributes = {}) => {
      const element = document.createElementNS(drawn.namespaceURI, tag);
      element.textContent = text;
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      drawn.append(element);
    };
    part("title", this.figures.map((figure) => figure.getAttribute("aria-label")).join(" "));
    part("style", style);
    part("rect", "", { width: "100%", height: "100%", fill: "white" });
    let [x, y, width, bottom] = [Picture.EDGE, Picture.EDGE, 0, 0];
    this.figures.forEach((figure, place) => {
      const copy = figure.querySelector("svg").cloneNode(true);
      const [wide, high] = ["width", "height"].map((side) => Number(copy.getAttribute(side)));
      if (place % Picture.COLUMNS === 1) [x, y] = [Picture.EDGE, bottom + Picture.GAP];
      for (const [key, value] of Object.entries({ x, y, overflow: "visible" })) {
        copy.setAttribute(key, value);
      }
      drawn.append(copy);
      width = Math.max(width, x + wide);
      bottom = Math.max(bottom, y + high);
      x += wide + Picture.GAP;
    });
    drawn.setAttribute("width", String(width + Picture.EDGE));
    drawn.setAttribute("height", String(bottom + Picture.EDGE));
    return new Blob([new XMLSerializer().serializeToString(drawn)], { type: "image/svg+xml" });
  }

  // Return the charts as PNG, in the fonts of the page.
  async png() {
    const image = new Image();
    image.src = URL.createObjectURL(this.svg(document.querySelector("style").textContent));
    await image.decode();
    const [width, height] = [image.width, image.height].map((side) => Picture.SCALE * side);
    const canvas = make("canvas", { width, height });
    canvas.getContext("2d").drawImage(image, 0, 0, width, height);
    URL.revokeObjectURL(image.src);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }
}

// Create a button that opens a menu of buttons.
function menu(name, choices) {
  const open = make("button", { type: "button", ariaExpanded: "false" }, name);
  const more = make("span", { className: "choices", hidden: true });
  for (const [choice, act] of Object.entries(choices)) {
    more.append(make("button", { type: "button", on: { click: act } }, choice));
  }
  open.addEventListener("click", () => {
    more.hidden = !more.hidden;
    open.setAttribute("aria-expanded", String(!more.hidden));
  });
  return make("div", { className: "tools" }, open, more);
}
