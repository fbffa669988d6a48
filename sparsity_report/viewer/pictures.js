// Pictures as lists of shapes, drawn as elements of the page, SVG, PNG or PDF.
import palette from "../draw/palette.json" with { type: "json" };
import { make } from "./elements.js";

const NS = "http://www.w3.org/2000/svg";
const FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif";
export const THEMES = {
  light: { paper: "#ffffff", ink: "#1c1d20", soft: "#5d6168", line: "#dcdcd8", accent: "#d55e00",
    dense: "#0072b2" },
  dark: { paper: "#16171a", ink: "#e8e6e1", soft: "#a2a5ab", line: "#34363a", accent: "#ef8c45",
    dense: "#5aa9dc" },
};
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

// Return a picture as the text of an SVG file.
export function svgText({ shapes, width, height, description }, theme) {
  const colors = THEMES[theme];
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

async function raster(picture, theme, scale) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(picture, theme))}`;
  await image.decode();
  const [width, height] = [picture.width, picture.height].map((side) => Math.round(side * scale));
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// Letters that the fonts of every PDF reader have, by their code there.
const NEAREST = { "\u202f": " ", "\u00a0": " ", "−": "-", "≤": "<=", "≈": "~", "→": "->" };
const CODES = { "–": 0x96, "—": 0x97, "…": 0x85, "’": 0x92, "“": 0x93, "”": 0x94, "œ": 0x9c };
const plain = (text) => [...String(text)].map((sign) => NEAREST[sign] ?? sign).join("");
const isPlain = (text) =>
  [...plain(text)].every((sign) =>
    CODES[sign] || (sign >= " " && sign <= "ÿ" && !(sign > "~" && sign < "\u00a1"))
  );
const coded = (text) =>
  [...plain(text)].map((sign) => String.fromCharCode(CODES[sign] ?? sign.charCodeAt(0))).join("")
    .replace(/[\\()]/g, "\\$&");

function pdfShapes({ shapes, height }, theme) {
  const measure = document.createElement("canvas").getContext("2d");
  const color = (name) =>
    channels((THEMES[theme][name] ?? name).slice(1)).map((part) => (part / 255).toFixed(3)).join(
      " ",
    );
  const n = (value) => value.toFixed(2);
  return shapes.map((shape) => {
    const { t, fill, stroke, dash, opacity, x, y } = shape;
    const paint = [fill && `${color(fill)} rg`,
      stroke && `${color(stroke)} RG ${n(shape.width ?? 1)} w [${dash ?? ""}] 0 d`,
      `/G${Math.round(10 * (opacity ?? 1))} gs`];
    const how = fill && stroke ? "B" : fill ? "f" : "S";
    let path = "";
    if (t === "rect") {
      path = `${n(x)} ${n(height - y - shape.h)} ${n(shape.w)} ${n(shape.h)} re ${how}`;
    }
    if (t === "line") {
      path = `${n(shape.x1)} ${n(height - shape.y1)} m ${n(shape.x2)} ${n(height - shape.y2)} l S`;
    }
    if (t === "path") {
      path = `${
        shape.points.map(([a, b], k) => `${n(a)} ${n(height - b)} ${k ? "l" : "m"}`).join(" ")
      } S`;
    }
    if (t === "circle") {
      const [r, k, at] = [shape.r, 0.5523 * shape.r, height - y];
      const curve = (...points) => `${points.map(n).join(" ")} c`;
      path = [`${n(x + r)} ${n(at)} m`, curve(x + r, at + k, x + k, at + r, x, at + r),
        curve(x - k, at + r, x - r, at + k, x - r, at),
        curve(x - r, at - k, x - k, at - r, x, at - r),
        curve(x + k, at - r, x + r, at - k, x + r, at), how].join(" ");
    }
    if (t === "text") {
      const size = shape.size ?? 12;
      const bold = (shape.weight ?? 400) > 500;
      measure.font = `${bold ? "bold " : ""}${size}px ${FONT}`;
      const shift = { middle: 0.5, end: 1 }[shape.anchor] ?? 0;
      const left = x - shift * measure.measureText(plain(shape.text)).width;
      return `q ${color(fill ?? "ink")} rg BT /F${bold ? 2 : 1} ${size} Tf ${n(left)} ${
        n(height - y)
      } Td (${coded(shape.text)}) Tj ET Q`;
    }
    return `q ${paint.filter(Boolean).join(" ")} ${path} Q`;
  });
}

const latin = (text) => Uint8Array.from(text, (sign) => sign.charCodeAt(0));

async function deflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Return a picture as a PDF of one page; letters of other alphabets make it an image.
async function pdf(picture, theme) {
  const { shapes, width, height } = picture;
  const isVector = shapes.every(({ t, text }) => t !== "text" || isPlain(text));
  let content;
  let image = null;
  if (isVector) {
    const ground = { t: "rect", x: 0, y: 0, w: width, h: height, fill: "paper" };
    content = pdfShapes({ ...picture, shapes: [ground, ...shapes] }, theme).join("\n");
  } else {
    const canvas = await raster(picture, theme, 4);
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    image = { w: canvas.width, h: canvas.height, bytes: await deflated(data.filter((_, k) =>
      k % 4 < 3
    )) };
    content = `q ${width} 0 0 ${height} 0 0 cm /I Do Q`;
  }
  const states = [...Array(11).keys()].map((k) => `/G${k} << /ca ${k / 10} /CA ${k / 10} >>`).join(
    " ",
  );
  const font = (name) =>
    `<< /Type /Font /Subtype /Type1 /BaseFont /${name} /Encoding /WinAnsiEncoding >>`;
  const stream = async (head, bytes, packed = null) => {
    const body = packed ?? (await deflated(bytes));
    return [latin(`<< ${head} /Filter /FlateDecode /Length ${body.length} >>\nstream\n`), body,
      latin("\nendstream")];
  };
  const resources = `<< /Font << /F1 5 0 R /F2 6 0 R >> /ExtGState << ${states} >>${
    image ? " /XObject << /I 7 0 R >>" : ""
  } >>`;
  const objects = [[latin("<< /Type /Catalog /Pages 2 0 R >>")], [
    latin("<< /Type /Pages /Kids [3 0 R] /Count 1 >>"),
  ], [
    latin(
      `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 ${width} ${height}] /Contents 4 0 R `
        + `/Resources ${resources} >>`,
    ),
  ], await stream("", latin(content)), [latin(font("Helvetica"))], [latin(font("Helvetica-Bold"))]];
  if (image) {
    objects.push(
      await stream(
        `/Type /XObject /Subtype /Image /Width ${image.w} /Height ${image.h} `
          + "/ColorSpace /DeviceRGB /BitsPerComponent 8",
        null,
        image.bytes,
      ),
    );
  }
  const [parts, offsets] = [[latin("%PDF-1.4\n")], []];
  const length = () => parts.reduce((sum, part) => sum + part.length, 0);
  objects.forEach((object, k) => {
    offsets.push(length());
    parts.push(latin(`${k + 1} 0 obj\n`), ...object, latin("\nendobj\n"));
  });
  const start = length();
  const table = offsets.map((at) => `${String(at).padStart(10, "0")} 00000 n \n`).join("");
  parts.push(
    latin(
      `xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${table}trailer << /Size ${
        objects.length + 1
      } /Root 1 0 R >>\nstartxref\n${start}\n%%EOF\n`,
    ),
  );
  return new Blob(parts, { type: "application/pdf" });
}

// Return a picture as a file: svg, png or pdf.
export async function file(picture, kind, theme) {
  if (kind === "svg") return new Blob([svgText(picture, theme)], { type: "image/svg+xml" });
  if (kind === "pdf") return pdf(picture, theme);
  const canvas = await raster(picture, theme, 3);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
