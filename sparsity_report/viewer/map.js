// The map: every layer as a cell, block by projection; experts share the place of their block.
import { make } from "./elements.js";
import { clip, known } from "./numbers.js";
import { colorOf, colorsOf, draw, element } from "./pictures.js";

/** @typedef {{ i: number, cell: number[], x: number, y: number, w: number, h: number }} Mark */

// Most cells drawn as elements; narrowest column; smallest cell to click; height of letters.
const [ELEMENTS, COLUMN, CLICKABLE, LETTER] = [2000, 3, 6, 6.3];

/**
 * Return the places of layers in a plot of a size, and the labels around it.
 * @returns {{ marks: Mark[], shapes: any[], width: number, height: number }}
 */
export function layout(figures, members, width, height) {
  const { modules, text } = figures;
  const blockOf = (i) => modules.blocks[i] ?? -1;
  const blocks = [...new Set(members.map(blockOf))].sort((a, b) => a - b);
  const rows = [...new Set(members.map((i) => modules.projections[i]))];
  const names = rows.length > 1 || blocks.length > 1;
  const left = names
    ? Math.min(0.28 * width, 12 + LETTER * Math.max(...rows.map((row) => row.length)))
    : 2;
  const bottom = names ? 34 : 4;
  const [plotWidth, plotHeight] = [width - left - 2, height - bottom - 2];
  const merged = Math.ceil(blocks.length / Math.max(1, Math.floor(plotWidth / COLUMN)));
  const columnOf = new Map(blocks.map((block, k) => [block, Math.floor(k / merged)]));
  const cells = new Map();
  for (const i of members) {
    const key = `${columnOf.get(blockOf(i))} ${modules.projections[i]}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(i);
  }
  const deep = new Set(
    [...cells].filter(([, part]) => part.length > 1).map(([key]) =>
      key.slice(key.indexOf(" ") + 1)
    ),
  );
  const weights = rows.map((row) => (deep.has(row) ? 3 : 1));
  const unit = Math.min(36, plotHeight / weights.reduce((a, b) => a + b, 0));
  const tops = weights.map((_, k) => weights.slice(0, k).reduce((a, b) => a + b, 0) * unit + 2);
  const columns = Math.ceil(blocks.length / merged);
  const step = Math.min(plotWidth / columns, names ? 110 : Infinity);
  const marks = [];
  for (const [key, part] of cells) {
    const [column, row] = [Number(key.slice(0, key.indexOf(" "))),
      rows.indexOf(key.slice(key.indexOf(" ") + 1))];
    const high = names ? weights[row] * unit : plotHeight;
    const across = Math.max(1,
      Math.min(part.length, Math.round(Math.sqrt((part.length * step) / high))));
    const [w, h] = [step / across, high / Math.ceil(part.length / across)];
    part.forEach((i, k) => {
      const gap = (size) => (size > 4 ? size - 1 : size);
      marks.push({ i, cell: part, x: left + column * step + (k % across) * w,
        y: tops[row] + Math.floor(k / across) * h, w: gap(w), h: gap(h) });
    });
  }
  const end = tops.at(-1) + weights.at(-1) * unit;
  /** @type {any[]} */
  const shapes = !names
    ? []
    : rows.map((row, k) => ({ t: "text", x: left - 8, y: tops[k] + (weights[k] * unit) / 2 + 4,
      anchor: "end", text: clip(row, Math.floor((left - 10) / LETTER)) })
    );
  const every = Math.ceil(26 / step);
  for (let column = 0; names && column < columns; column += every) {
    const block = blocks[column * merged];
    shapes.push({ t: "text", x: left + (column + 0.5) * step, y: end + 14, anchor: "middle",
      size: 11, fill: "soft", text: block < 0 ? text.say("outside_short") : String(block) });
  }
  if (names) {
    shapes.push({ t: "text", x: left + (columns * step) / 2, y: end + 29, anchor: "middle",
      size: 11, fill: "soft", text: text.say("block_axis") });
  }
  return { marks, shapes, width, height: names ? end + bottom : height };
}

// Return a function from a layer to its color, and the ends of the scale.
export function scale(figures, state, members) {
  const metric = figures.metric(state);
  const values = new Map(members.map((i) => [i, figures.value(metric, [i])]));
  let [low, high] = [0, 1];
  if (metric.kind !== "share" || metric.root) {
    const all = [...values.values()].filter((value) => known(value) && Number.isFinite(value));
    // A narrower scale would make noise look like a finding.
    high = all.reduce((most, value) =>
      Math.max(most, metric.signed ? Math.abs(value) : value), metric.signed ? 0.02 : 0) || 1;
    low = metric.signed ? -high : all.reduce((least, value) =>
      Math.min(least, value), 0);
  }
  const color = (
    i,
  ) => (known(values.get(i)) ? colorOf((values.get(i) - low) / (high - low), metric.signed) : null);
  return { metric, values, color, low, high };
}

export class HeatMap {
  constructor(place, figures, store) {
    this.figures = figures;
    this.store = store;
    /** Layers of the cell that is shown alone. @type {number[] | null} */
    this.zoomed = null;
    this.pointed = -1;
    /** Places of the cells, and for what they were arranged. @type {ReturnType<typeof layout>} */
    this.plan = undefined;
    this.arranged = "";
    /** @type {number[]} */
    this.drawn = [];
    this.canvas = make("canvas");
    this.svg = element("svg", { "aria-hidden": "true" });
    this.box = make("div", { className: "sv-map", tabIndex: 0, role: "application" }, this.canvas,
      this.svg);
    this.back = make("button", { type: "button", className: "sv-back", hidden: true,
      textContent: figures.text.say("all_blocks"), on: { click: () => this.zoom(null) } });
    this.legend = element("svg", { class: "sv-legend", "aria-hidden": "true" });
    this.tip = make("span", { role: "status" });
    place.append(this.box,
      make("div", { className: "sv-caption" }, this.back, this.legend, this.tip));
    this.listen();
  }

  members(state) {
    return this.zoomed ?? this.figures.scope(state.modules, state);
  }

  zoom(cell) {
    this.zoomed = cell;
    this.back.hidden = !cell;
    this.pointed = -1;
    this.update(this.store.state);
  }

  // Place all cells anew for the width of the page.
  arrange(state) {
    const [width, height] = [this.box.clientWidth, this.box.clientHeight];
    const members = this.members(state);
    const key = `${width} ${height} ${state.modules} ${this.zoomed?.[0]} ${this.zoomed?.length}`;
    if (this.arranged === key && this.drawn === members) return;
    Object.assign(this, { arranged: key, drawn: members,
      plan: layout(this.figures, members, width, height) });
    const { marks, shapes } = this.plan;
    this.isCanvas = marks.length > ELEMENTS;
    this.canvas.hidden = !this.isCanvas;
    const dense = window.devicePixelRatio || 1;
    Object.assign(this.canvas, { width: this.isCanvas ? width * dense : 0,
      height: this.isCanvas ? height * dense : 0 });
    draw(this.svg, { shapes, width, height });
    this.cells = this.isCanvas
      ? []
      : marks.map(({ i, x, y, w, h }) =>
        element("rect", { class: "sv-cell", "data-cell": i, x, y, width: w, height: h })
      );
    this.outline = element("path", { class: "sv-outline" });
    this.cursor = element("rect", { class: "sv-cursor", visibility: "hidden" });
    this.brush = element("rect", { class: "sv-brush", visibility: "hidden" });
    this.svg.append(...this.cells, this.outline, this.cursor, this.brush);
  }

  update(state) {
    if (!this.box.clientWidth) return;
    const { figures } = this;
    this.arrange(state);
    const { marks } = this.plan;
    const { metric, values, color, low, high } = scale(figures, state, this.drawn);
    this.values = values;
    const matching = state.search ? new Set(figures.matching(state)) : null;
    if (this.isCanvas) {
      const context = this.canvas.getContext("2d");
      const blank = colorsOf(this.box).line;
      const dense = window.devicePixelRatio || 1;
      context.setTransform(dense, 0, 0, dense, 0, 0);
      context.clearRect(0, 0, this.plan.width, this.canvas.height);
      for (const { i, x, y, w, h } of marks) {
        context.globalAlpha = matching && !matching.has(i) ? 0.2 : 1;
        context.fillStyle = color(i) ?? blank;
        context.fillRect(x, y, w, h);
      }
    } else {
      marks.forEach(({ i }, k) => {
        const cell = this.cells[k];
        cell.style.fill = color(i) ?? "var(--sv-line)";
        cell.style.opacity = matching && !matching.has(i) ? 0.2 : "";
      });
    }
    const selected = new Set(state.selection.length ? state.selection : [state.detail]);
    const box = ({ x, y, w, h }) => `M${x} ${y}h${w}v${h}h${-w}z`;
    this.outline.setAttribute("d", marks.filter(({ i }) => selected.has(i)).map(box).join(""));
    const title = figures.text.say("map_hint", { metric: metric.label });
    this.box.setAttribute("aria-label", title);
    this.box.dataset.metric = metric.key;
    const ends = [low, high].map((end) => figures.text.value(end, metric.kind));
    draw(this.legend, legend(ends, metric.signed, metric.label));
    this.point(this.pointed, false);
  }

  describe(i) {
    const { figures, store: { state } } = this;
    const metric = figures.metric(state);
    const value = figures.text.value(this.values.get(i) ?? figures.value(metric, [i]), metric.kind);
    return figures.text.say("cell", { name: figures.nameOf(i), metric: metric.label, value });
  }

  point(place, speak = true) {
    this.pointed = place;
    const mark = this.plan?.marks[place];
    this.cursor?.setAttribute("visibility", mark ? "visible" : "hidden");
    if (!mark) {
      this.tip.textContent = "";
      return;
    }
    for (const [key, value] of Object.entries({ x: mark.x, y: mark.y, width: mark.w,
      height: mark.h })) this.cursor.setAttribute(key, value);
    if (speak) this.tip.textContent = this.describe(mark.i);
  }

  at(event) {
    const box = this.box.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** @param {number[]} place */
  hit([x, y]) {
    return this.plan.marks.findIndex((mark) =>
      x >= mark.x && x <= mark.x + mark.w + 1 && y >= mark.y && y <= mark.y + mark.h + 1
    );
  }

  // Open a cell of many small ones, or select a layer.
  choose(place, more) {
    const mark = this.plan.marks[place];
    if (!mark) return;
    if (mark.cell.length > 1 && Math.min(mark.w, mark.h) < CLICKABLE && !more) this.zoom(mark.cell);
    else this.store.select([mark.i], more);
  }

  listen() {
    const { box } = this;
    let from = null;
    box.addEventListener("pointerdown", (event) => {
      from = event.button === 0 ? this.at(event) : null;
    });
    box.addEventListener("pointermove", (event) => {
      const to = this.at(event);
      if (!from || !(event.buttons & 1)) return this.point(this.hit(to));
      const [x, y] = [Math.min(from[0], to[0]), Math.min(from[1], to[1])];
      const [w, h] = [Math.abs(from[0] - to[0]), Math.abs(from[1] - to[1])];
      if (w + h < 6) return;
      if (!this.area) box.setPointerCapture(event.pointerId);
      this.area = { x, y, w, h };
      for (const [key, value] of Object.entries({ x, y, width: w, height: h,
        visibility: "visible" })) this.brush.setAttribute(key, value);
    });
    box.addEventListener("pointerup", (event) => {
      const [area, more] = [this.area, event.shiftKey || event.metaKey || event.ctrlKey];
      this.area = null;
      this.brush?.setAttribute("visibility", "hidden");
      if (area) {
        const inside = ({ x, y, w, h }) =>
          x < area.x + area.w && x + w > area.x && y < area.y + area.h && y + h > area.y;
        this.store.select(this.plan.marks.filter(inside).map(({ i }) => i), more, true);
      } else if (from) this.choose(this.hit(this.at(event)), more);
      from = null;
    });
    box.addEventListener("pointerleave", () => this.point(-1));
    box.addEventListener("focus",
      () =>
        this.point(
          Math.max(0, this.plan.marks.findIndex(({ i }) => i === this.store.state.detail)),
        ));
    box.addEventListener("blur", () => this.point(-1));
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    box.addEventListener("keydown", (event) => {
      if (steps[event.key]) this.step(...steps[event.key]);
      else if (event.key === "Enter" || event.key === " ") {
        this.choose(this.pointed, event.shiftKey || event.ctrlKey || event.metaKey);
      } else if (event.key === "Escape" && this.zoomed) this.zoom(null);
      else return;
      event.preventDefault();
    });
  }

  // Move the cursor to the nearest cell in a direction.
  step(right, down) {
    const from = this.plan.marks[this.pointed] ?? this.plan.marks[0];
    let [best, least] = [-1, Infinity];
    this.plan.marks.forEach((mark, place) => {
      const [dx, dy] = [mark.x + mark.w / 2 - from.x - from.w / 2,
        mark.y + mark.h / 2 - from.y - from.h / 2];
      const [along, aside] = right ? [dx * right, Math.abs(dy)] : [dy * down, Math.abs(dx)];
      if (along > 0.5 && along + 4 * aside < least) [best, least] = [place, along + 4 * aside];
    });
    if (best >= 0) this.point(best);
  }

  // Return the map as a picture of a width, with a title and its scale.
  picture(state, width, title) {
    const members = this.members(state);
    const { metric, color, low, high } = scale(this.figures, state, members);
    const plan = layout(this.figures, members, width, Math.min(0.62 * width, 300));
    const down = (shape) => ({ ...shape, y: shape.y + 24 });
    const cells = plan.marks.map(({ i, x, y, w, h }) => ({ t: "rect", x, y: y + 24, w, h,
      fill: color(i) ?? "line" })
    );
    const ends = [low, high].map((end) => this.figures.text.value(end, metric.kind));
    const key = legend(ends, metric.signed, metric.label).shapes.map((shape) => ({ ...shape,
      y: shape.y + plan.height + 30 })
    );
    const heading = { t: "text", x: 2, y: 14, text: clip(title, Math.floor(width / 6.6)),
      weight: 600 };
    return { width, height: plan.height + 58,
      shapes: [heading, ...plan.shapes.map(down), ...cells, ...key], description: title };
  }
}

// Return the scale of colors with its ends as a small picture.
/** @param {string[]} ends */
function legend([low, high], signed, label) {
  const steps = [...Array(24).keys()].map((k) => ({ t: "rect", x: 4 + 4 * k, y: 3, w: 4.3, h: 9,
    fill: colorOf((k + 0.5) / 24, signed) })
  );
  const text = (x, content, anchor = "start") => ({ t: "text", x, y: 24, text: content, size: 10,
    fill: "soft", anchor });
  return {
    shapes: [...steps, text(4, low), text(100, high, "end"), { t: "text", x: 108, y: 12, size: 11,
      text: clip(label, 22) }],
    width: 240,
    height: 28,
  };
}
