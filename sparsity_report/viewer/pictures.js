// Pictures as lists of shapes, drawn as elements of the page, SVG or PNG.
import palette from "../draw/palette.json" with { type: "json" };
import { make } from "./elements.js";

const NS = "http://www.w3.org/2000/svg";
// Pixels of a PNG per point.
const SCALE = 3;
const FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif";
// Names of colors, which the style sheet gives for both themes.
const COLORS = ["paper", "ink", "soft", "line", "accent", "dense"];
const channels = (color) => [0, 2, 4].map((at) => parseInt(color.slice(at, at + 2), 16));
const [VIRIDIS, DIVERGING] = [palette.viridis.map(channels), palette.diverging.map(channels)];

// Return the color of a share of a scale, as #rrggbb.
export function colorOf(share, signed = false) {
  const stops = signed ? DIVERGING : VIRIDIS;
  const at = Math.min(0.99999, Math.max(0, share)) * (stops.length - 1);
  const [low, part] = [Math.floor(at), at % 1];
  return `#${
    stops[low].map((from, k) =>
      Math.round(from + part * (stops[low + 1][k] - from)).toString(16).padStart(2, "0")
    ).join("")
  }`;
}

const attributes = {
  rect: ({ x, y, w, h }) => ({ x, y, width: Math.max(0, w), height: Math.max(0, h) }),
  line: ({ x1, y1, x2, y2 }) => ({ x1, y1, x2, y2 }),
  path: ({ points }) => ({
    d: points.map(([x, y], k) => `${k ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join(""),
    fill: "none",
  }),
  circle: ({ x, y, r }) => ({ cx: x, cy: y, r }),
  text: ({ x, y, anchor, size, weight }) => ({ x, y, "text-anchor": anchor ?? "start",
    "font-size": size ?? 12, "font-weight": weight ?? 400 }),
};

function painted(shape, color) {
  const named = attributes[shape.t](shape);
  if (shape.fill) named.fill = color(shape.fill);
  else if (shape.t === "text") named.fill = color("ink");
  if (shape.stroke) {
    Object.assign(named, { stroke: color(shape.stroke), "stroke-width": shape.width ?? 1 });
  }
  if (shape.stroke && shape.t === "rect" && !shape.fill) named.fill = "none";
  if (shape.dash) named["stroke-dasharray"] = shape.dash;
  if (shape.opacity !== undefined) named.opacity = shape.opacity;
  return named;
}

export function element(tag, named = {}, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [key, value] of Object.entries(named)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Draw shapes as elements; colors follow the theme of the page.
export function draw(svg, { shapes, width, height }) {
  const color = (name) => (name.startsWith("#") ? name : `var(--sv-${name})`);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...shapes.map((shape) => {
    const { fill, stroke, ...named } = painted(shape, color);
    const made = element(shape.t, named, ...(shape.t === "text" ? [shape.text] : []));
    if (fill) made.style.fill = fill;
    if (stroke) made.style.stroke = stroke;
    if (shape.tip) made.append(element("title", {}, shape.tip));
    if (shape.name) made.classList.add(shape.name);
    return made;
  }));
}

const escaped = (text) =>
  String(text).replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`).replace(
    /(?![\t\n\r])\p{Cc}/gu,
    "",
  );

// Return the colors of an element by name, as its theme has them.
export function colorsOf(place) {
  const probe = place.appendChild(make("span"));
  const colors = COLORS.map((name) => {
    probe.style.color = `var(--sv-${name})`;
    return [name, getComputedStyle(probe).color];
  });
  probe.remove();
  return Object.fromEntries(colors);
}

// Return a picture as the text of an SVG file.
function svgText({ shapes, width, height, description }, colors) {
  const tag = (name, named, inner = "") =>
    `<${name}${
      Object.entries(named).map(([key, value]) => ` ${key}="${escaped(value)}"`).join("")
    }>${inner}</${name}>`;
  const drawn = shapes.map((shape) =>
    tag(shape.t, painted(shape, (name) => colors[name] ?? name),
      shape.t === "text" ? escaped(shape.text) : "")
  );
  const ground = tag("rect", { width, height, fill: colors.paper });
  return tag("svg", { xmlns: NS, width, height, viewBox: `0 0 ${width} ${height}`,
    "font-family": FONT, role: "img" },
    `<title>${escaped(description)}</title>${ground}${drawn.join("")}`);
}

// Return a picture as a file, svg or png, in colors from `colorsOf`.
export async function file(picture, kind, colors) {
  const text = svgText(picture, colors);
  if (kind === "svg") return new Blob([text], { type: "image/svg+xml" });
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const [width, height] = [picture.width, picture.height].map((side) => Math.round(SCALE * side));
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
