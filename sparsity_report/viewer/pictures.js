// Pictures as lists of shapes, drawn as elements of the page, SVG or PNG.
import palette from "../draw/palette.json" with { type: "json" };
import { element, make, svgFile } from "./elements.js";

const FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif";

// Return red, green and blue of #rrggbb, rrggbb or rgb(…).
export const channels = (color) =>
  color.startsWith("rgb")
    ? color.match(/\d+/g).slice(0, 3).map(Number)
    : [-6, -4, -2].map((at) => parseInt(color.slice(at, at + 2 || undefined), 16));
const [VIRIDIS, DIVERGING] = [palette.viridis.map(channels), palette.diverging.map(channels)];

// Colors of the scales in 1,024 steps, mixed where they are first used.
const STEPS = 1023;
const MIXED = [[], []];

// Return the color of a share of a scale, as #rrggbb.
export function colorOf(share, signed = false) {
  const step = Math.round(STEPS * Math.min(1, Math.max(0, share)));
  return MIXED[Number(signed)][step] ??= mixed(signed ? DIVERGING : VIRIDIS, step / STEPS);
}

function mixed(stops, share) {
  const at = Math.min(0.99999, share) * (stops.length - 1);
  const [low, part] = [Math.floor(at), at % 1];
  const codes = stops[low].map((from, k) => from + part * (stops[low + 1][k] - from));
  return `#${codes.map((code) => Math.round(256 + code).toString(16).slice(1)).join("")}`;
}

// Shapes of pictures.
export const words = (x, y, text, more = {}) => ({ t: "text", x, y, text, ...more });
export const small = (x, y, text, more = {}) =>
  words(x, y, text, { size: 11, fill: "soft", ...more });
export const line = (x1, y1, x2, y2, stroke, more = {}) => ({ t: "line", x1, y1, x2, y2, stroke,
  ...more });
// A text on the left or on the right of a place; lines that cross it stop beside its letters.
export const beside = (x, y, text, isLeft, more = {}) =>
  words(x + (isLeft ? -7 : 7), y, text, { anchor: isLeft ? "end" : "start", stroke: "paper",
    width: 3, ...more });
export const rect = (x, y, w, h, fill, more = {}) => ({ t: "rect", x, y, w, h, fill, ...more });

const attributes = {
  rect: ({ x, y, w, h }) => ({ x, y, width: Math.max(0, w), height: Math.max(0, h) }),
  line: ({ x1, y1, x2, y2 }) => ({ x1, y1, x2, y2 }),
  path: ({ points }) => ({
    d: `M${points.map((at) => at.map((to) => to.toFixed(2)).join(" ")).join("L")}`,
  }),
  circle: ({ x, y, r }) => ({ cx: x, cy: y, r }),
  text: ({ x, y, anchor, size, weight }) => ({ x, y, "text-anchor": anchor ?? "start",
    "font-size": size ?? 12, "font-weight": weight ?? 400 }),
};

function painted(shape, color) {
  const { t, stroke, width = 1, dash, opacity, fill = t === "text" ? "ink" : "" } = shape;
  return { ...attributes[t](shape), fill: fill ? color(fill) : "none",
    stroke: stroke && color(stroke), "stroke-width": stroke && width,
    "paint-order": t === "text" ? "stroke" : undefined, "stroke-dasharray": dash, opacity };
}

// Elements of the shapes of a picture, with what was set in each.
const drawn = new WeakMap();

// Draw shapes as elements; their colors follow the theme of the page. Only what changed is set.
export function draw(svg, { shapes, width, height }) {
  const color = (name) => (name.startsWith("#") ? name : `var(--sv-${name})`);
  const before = drawn.get(svg) ?? [];
  const now = shapes.map((shape, k) => {
    const { t, text = "", tip = "" } = shape;
    const old = before[k]?.made.tagName === t ? before[k] : { made: element(t), set: {} };
    const [{ made }, set] = [old, painted(shape, color)];
    if (old.text !== text || old.tip !== tip) {
      made.replaceChildren(text, ...(tip ? [element("title", {}, tip)] : []));
    }
    // Shapes of one kind have the same attributes.
    for (const [key, value] of Object.entries(set)) {
      if (value === old.set[key]) continue;
      if (key === "fill" || key === "stroke") made.style[key] = value ?? "";
      else if (value === undefined) made.removeAttribute(key);
      else made.setAttribute(key, value);
    }
    return { made, set, text, tip };
  });
  drawn.set(svg, now);
  const [box, { childNodes }] = [`0 0 ${width} ${height}`, svg];
  if (svg.getAttribute("viewBox") !== box) svg.setAttribute("viewBox", box);
  const isSame = (_, k) => now[k]?.made === childNodes[k];
  if (now.length !== childNodes.length || !now.every(isSame)) {
    svg.replaceChildren(...now.map(({ made }) => made));
  }
}

/**
 * Return pictures below one another as the text of an SVG file, in the colors of an element.
 * @param {any} picture Its parts are plans with their places.
 */
export function svgText({ parts, ...about }, place, unit = "") {
  const svgs = parts.map(([plan, x, y]) => {
    const { width, height } = plan;
    const svg = element("svg", { x, y, width, height, overflow: "visible" });
    draw(svg, plan);
    return svg;
  });
  const probe = place.appendChild(make("span"));
  const text = svgFile(svgs, { ...about, fill: "var(--sv-paper)", font: FONT, unit });
  const painted = text.replace(/var\(.+?\)/g, (color) => {
    probe.style.color = color;
    return getComputedStyle(probe).color;
  });
  probe.remove();
  return painted;
}
