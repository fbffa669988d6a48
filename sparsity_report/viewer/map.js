// The map: every layer as a cell, block by projection; experts share the place of their block.
import { element, isMore, make, menu, setAttributes } from "./elements.js";
import { grouped } from "./figures.js";
import { clip } from "./numbers.js";
import { channels, colorOf, draw, rect, small, words } from "./pictures.js";

/** @typedef {{ i: number, x: number, y: number, w: number, h: number }} Mark */

// Most cells drawn as elements; narrowest column; width of letters.
const [ELEMENTS, COLUMN, LETTER] = [2000, 3, 6.3];
// Least range that colors are fitted to, as a share of the full scale; largest one by default.
const [NARROW, WIDE] = [0.02, 0.5];
// Parts of a state on which the full scale depends: not the sparsity, so that it stays.
const STEADY = ["variant", "policy", "metric", "layout", "against", "against_policy", "modules",
  "colors"];

/**
 * Return the places of layers in a plot of a size, and the labels around it.
 * @returns {{ marks: Mark[], shapes: any[], width: number, height: number }}
 */
export function layout(figures, members, width, height) {
  const { modules, text } = figures;
  const blockOf = (i) => modules.blocks[i] ?? -1;
  const blocks = [...new Set(members.map(blockOf))].sort((a, b) => a - b);
  const byRow = grouped(members, (i) => modules.projections[i]);
  const names = byRow.length > 1 || blocks.length > 1;
  const longest = Math.max(...byRow.map(([row]) => row.length));
  const left = names ? Math.min(0.28 * width, 12 + LETTER * longest) : 2;
  const bottom = names ? 34 : 4;
  const plotWidth = width - left - 2;
  const merged = Math.ceil(blocks.length / Math.max(1, Math.floor(plotWidth / COLUMN)));
  const columnOf = new Map(blocks.map((block, k) => [block, Math.floor(k / merged)]));
  const step = plotWidth / Math.ceil(blocks.length / merged);
  const rows = byRow.map(([row, inside]) => {
    const cells = grouped(inside, (i) => columnOf.get(blockOf(i)));
    return { row, cells, parts: cells.some(([, part]) => part.length > 1) ? 3 : 1 };
  });
  const unit = (height - bottom - 2) / rows.reduce((all, { parts }) => all + parts, 0);
  const gap = (size) => (size > 4 ? size - 1 : size);
  const [marks, shapes] = [[], []];
  let top = 2;
  for (const { row, cells, parts } of rows) {
    const [high, y] = [parts * unit, top];
    const label = clip(row, Math.floor((left - 10) / LETTER));
    if (names) shapes.push(words(left - 8, y + high / 2 + 4, label, { anchor: "end" }));
    for (const [column, part] of cells) {
      // Nearly square cells, with few places left over.
      const deep = Math.ceil(part.length / Math.ceil(Math.sqrt((part.length * step) / high)));
      const across = Math.ceil(part.length / deep);
      const [w, h] = [step / across, high / deep];
      part.forEach((i, k) => {
        marks.push({ i, x: left + column * step + (k % across) * w,
          y: y + Math.floor(k / across) * h, w: gap(w), h: gap(h) });
      });
    }
    top += high;
  }
  if (!names) return { marks, shapes, width, height };
  // Numbers of every 1, 2, 5, 10 … blocks, then the last one and those outside, if they fit.
  const first = blocks[0] < 0 ? 1 : 0;
  const room = (merged / step) * (LETTER * String(blocks.at(-1)).length + 8);
  let every = 1;
  for (let k = 1; every < room; k += 1) every = [1, 2, 5][k % 3] * 10 ** Math.floor(k / 3);
  const round = blocks.filter((_, k) => k >= first && (k - first) % every === 0);
  const [labels, middle] = [[], { anchor: "middle" }];
  for (const block of [...round, blocks.at(-1), blocks[0]]) {
    const content = block < 0 ? text.say("outside_short") : String(block);
    const half = (LETTER * content.length) / 2;
    const x = Math.min(left + (columnOf.get(block) + 0.5) * step, width - half);
    const isFar = (one) => Math.abs(one.x - x) > half + (LETTER * one.text.length) / 2 + 5;
    if (labels.every(isFar)) labels.push(small(x, top + 14, content, middle));
  }
  shapes.push(...labels, small(left + plotWidth / 2, top + 29, text.say("block_axis"), middle));
  return { marks, shapes, width, height: top + bottom };
}

// Return the least and the largest finite value of a list and of a range.
const wider = ([least, most], value) => [Math.min(least, value), Math.max(most, value)];
const span = (all, range) => all.filter(Number.isFinite).reduce(wider, range);

/**
 * Return a function from a layer to its color, and the scale: its ends, true if the colors are
 * fitted, the range of the values in view, and that of these and those in `held`.
 * @param {number[]} [held]
 */
export function scale(figures, state, members, held = [Infinity, -Infinity]) {
  const metric = figures.metric(state);
  const valuesOf = (one) => members.map((i) => figures.value(one, [i]));
  const own = span(valuesOf(metric), [Infinity, -Infinity]);
  const range = span(own, held);
  const seen = range[0] <= range[1] ? range : [0, 0];
  const far = Math.max(NARROW, ...seen.map(Math.abs));
  const isOfWeights = metric.kind === "points" || (metric.kind === "share" && !metric.root);
  let [low, high] = metric.signed ? [-1, 1] : [0, 1];
  if (!isOfWeights && metric.signed) [low, high] = [-far, far];
  else if (!isOfWeights) {
    const key = [...STEADY.map((name) => state[name]), members.length, members[0]].join(" ");
    const widened = (ends, one) => span(valuesOf(figures.metric(one)), ends);
    const full = () => figures.extremes(state).reduce(widened, [0, 0]);
    [low, high] = figures.once(`scale ${key}`, full);
    high ||= 1;
  }
  const level = figures.levelOf(state);
  const noise = level ? 4 * level.policy.slack[level.k] : 0;
  let [least, most] = metric.signed ? [-far, far] : seen;
  const part = (most - least) / (high - low);
  if (isOfWeights) [least, most] = [Math.floor(100 * least) / 100, Math.ceil(100 * most) / 100];
  const isFitted = state.colors !== "full" && part > Math.max(NARROW, noise) && part < 1
    && (metric.signed || state.colors === "fitted" || part < WIDE);
  if (isFitted) [low, high] = [least, most];
  const color = (i) => {
    const value = figures.value(metric, [i]);
    return value === null ? null : colorOf((value - low) / (high - low), metric.signed);
  };
  return { metric, color, low, high, isFitted, own, range };
}

export class HeatMap {
  // Values of the state that the map does not show.
  unused = ["sort", "panel", "grouping"];
  width = 0;
  pointed = -1;
  rests = 0;
  /** Places of the cells. @type {ReturnType<typeof layout>} */
  plan = undefined;

  constructor(place, figures, store, redraw) {
    this.figures = figures;
    this.store = store;
    // The color of cells without a value.
    this.canvas = make("canvas", { style: "color: var(--sv-line)" });
    this.svg = element("svg", { "aria-hidden": "true" });
    this.box = make("div", { className: "sv-map", tabIndex: 0, role: "application" }, this.canvas,
      this.svg);
    this.legend = element("svg", { class: "sv-legend", "aria-hidden": "true" });
    this.tip = make("div", { className: "sv-tip", role: "status" });
    this.box.append(this.tip);
    const named = (key) => [key, figures.text.say(`colors_${key}`)];
    const choices = ["auto", "fitted", "full"].map(named);
    this.colors = menu("sv-colors", figures.text.say("colors"), choices,
      (colors) => store.set({ colors }));
    place.append(this.box, make("div", { className: "sv-caption" }, this.legend, this.colors));
    this.listen();
    // While the slider moves, the scale may grow; it is fitted again where the slider rests.
    store.onRest.push(() => {
      if (`${this.held}` !== `${this.own}`) this.rests += 1;
      this.held = this.own;
      redraw();
    });
  }

  measure() {
    this.width = this.box.clientWidth;
    this.height = this.box.clientHeight;
    this.room = this.legend.clientWidth;
    this.blank = getComputedStyle(this.canvas).color;
    return [this.width, this.height, this.room, window.devicePixelRatio, this.blank, this.rests];
  }

  // Place all cells anew for the width of the page.
  arrange(state) {
    const { width, height } = this;
    const members = this.figures.scope(state.modules, state);
    const key = `${width} ${height} ${state.modules}`;
    if (this.arranged === key && this.drawn === members) return;
    this.arranged = key;
    this.drawn = members;
    this.plan = layout(this.figures, members, width, height);
    const { marks, shapes } = this.plan;
    this.isCanvas = marks.length > ELEMENTS;
    const dense = this.isCanvas ? window.devicePixelRatio || 1 : 0;
    Object.assign(this.canvas, { hidden: !dense, width: width * dense, height: height * dense });
    draw(this.svg, { shapes, width, height });
    const cell = ({ i, x, y, w, h }) =>
      element("rect", { class: "sv-cell", "data-cell": i, x, y, width: w, height: h });
    this.cells = this.isCanvas ? [] : marks.map(cell);
    this.styles = [];
    // First and last pixel of each cell, which has one at least.
    const pixel = (at) => Math.round(at * dense + 1e-6);
    const ends = (from, size) => [pixel(from), Math.max(pixel(from + size), pixel(from) + 1)];
    this.pixels = marks.map(({ x, y, w, h }) => [...ends(x, w), ...ends(y, h)]);
    this.outline = element("path", { class: "sv-outline" });
    this.cursor = element("rect", { class: "sv-cursor", visibility: "hidden" });
    this.brush = element("rect", { class: "sv-brush", visibility: "hidden" });
    this.svg.append(...this.cells, this.outline, this.cursor, this.brush);
  }

  update(state) {
    if (!this.width) return;
    const { figures } = this;
    this.arrange(state);
    const { marks } = this.plan;
    const steady = [this.arranged, ...STEADY.map((name) => state[name])].join(" ");
    if (this.steady !== steady) this.held = undefined;
    const shown = scale(figures, state, this.drawn, this.held);
    const { metric, color } = shown;
    this.steady = steady;
    this.own = shown.own;
    this.held = shown.range;
    this.colors.value = state.colors;
    const matching = state.search ? new Set(figures.matching(state)) : null;
    const isFaded = (i) => matching && !matching.has(i);
    if (this.isCanvas) this.paint(color, isFaded);
    else {
      marks.forEach(({ i }, k) => {
        const style = `fill: ${color(i) ?? "var(--sv-line)"}${isFaded(i) ? "; opacity: 0.2" : ""}`;
        if (this.styles[k] !== style) this.cells[k].style.cssText = this.styles[k] = style;
      });
    }
    const selected = new Set(state.selection.length ? state.selection : [state.detail]);
    const box = ({ x, y, w, h }) => `M${x} ${y}h${w}v${h}h${-w}z`;
    const outline = marks.filter(({ i }) => selected.has(i)).map(box).join("");
    if (this.outline.getAttribute("d") !== outline) this.outline.setAttribute("d", outline);
    setAttributes(this.box, { "data-metric": metric.key,
      "aria-label": figures.text.say("map_hint", { metric: metric.label }) });
    draw(this.legend, legend(figures.text, shown, this.room || 240));
    this.point(this.pointed, false);
  }

  // Set the pixels of the cells; thousands of rectangles would take ten times as long.
  paint(color, isFaded) {
    const { canvas: { width, height }, canvas, plan: { marks } } = this;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const [all, codes] = [new Uint32Array(image.data.buffer), new Map()];
    marks.forEach(({ i }, k) => {
      const name = color(i) ?? this.blank;
      if (!codes.has(name)) {
        codes.set(name, channels(name).reduceRight((all, one) => 256 * all + one));
      }
      const code = codes.get(name) + 2 ** 24 * (isFaded(i) ? 51 : 255);
      const [left, right, top, bottom] = this.pixels[k];
      for (let row = top * width; row < bottom * width; row += width) {
        for (let at = row + left; at < row + right; at += 1) all[at] = code;
      }
    });
    context.putImageData(image, 0, 0);
  }

  point(place, speak = true) {
    this.pointed = place;
    const mark = this.plan?.marks[place];
    this.cursor?.setAttribute("visibility", mark ? "visible" : "hidden");
    if (!mark) this.tip.textContent = "";
    else {
      setAttributes(this.cursor, { x: mark.x, y: mark.y, width: mark.w, height: mark.h });
      if (speak || this.tip.textContent) this.tell(mark);
    }
  }

  // Show the text of a cell below it, above it in the lower half, and inside the map.
  tell({ i, x, y, w, h }) {
    const { figures, plan, store: { state } } = this;
    const metric = figures.metric(state);
    const both = figures.compares(state) ? ` (${figures.sides(state, [i])})` : "";
    this.tip.textContent = figures.text.say("cell", { name: figures.nameOf(i), metric: metric.label,
      value: figures.write(metric, [i]) + both });
    const [place, isLow] = [(100 * (x + w / 2)) / plan.width, y + h / 2 >= plan.height / 2];
    Object.assign(this.tip.style, { left: `${place}%`, top: `${isLow ? y - 6 : y + h + 6}px`,
      transform: `translate(${-place}%, ${isLow ? -100 : 0}%)` });
  }

  at(event) {
    const box = this.box.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** @param {number[]} place */
  hit([x, y]) {
    const isOver = (mark) =>
      x >= mark.x && x <= mark.x + mark.w + 1 && y >= mark.y && y <= mark.y + mark.h + 1;
    return this.plan.marks.findIndex(isOver);
  }

  choose(place, more) {
    const mark = this.plan.marks[place];
    if (mark) this.store.select([mark.i], more);
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
      setAttributes(this.brush, { x, y, width: w, height: h, visibility: "visible" });
    });
    // A touch that scrolls the page is cancelled and selects nothing.
    const end = () => {
      this.area = from = null;
      this.brush?.setAttribute("visibility", "hidden");
    };
    box.addEventListener("pointercancel", end);
    box.addEventListener("pointerup", (event) => {
      const [area, start, more] = [this.area, from, isMore(event)];
      end();
      if (area) {
        const inside = ({ x, y, w, h }) =>
          x < area.x + area.w && x + w > area.x && y < area.y + area.h && y + h > area.y;
        this.store.select(this.plan.marks.filter(inside).map(({ i }) => i), more, true);
      } else if (start) this.choose(this.hit(this.at(event)), more);
    });
    box.addEventListener("pointerleave", () => this.point(-1));
    box.addEventListener("focus", () => {
      const { detail } = this.store.state;
      this.point(Math.max(0, this.plan.marks.findIndex(({ i }) => i === detail)));
    });
    box.addEventListener("blur", () => this.point(-1));
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    box.addEventListener("keydown", (event) => {
      if (steps[event.key]) this.step(...steps[event.key]);
      else if (["Enter", " "].includes(event.key)) this.choose(this.pointed, isMore(event));
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
    const members = this.figures.scope(state.modules, state);
    const shown = scale(this.figures, state, members);
    const plan = layout(this.figures, members, width, Math.min(0.62 * width, 300));
    const letters = Math.floor(width / 6.6);
    const lines = title.match(new RegExp(`.{1,${letters}}( |$)|\\S+`, "g"));
    const top = 8 + 16 * lines.length;
    // The scale begins at the edge of the cells, where it has room.
    const left = Math.max(4, Math.min(plan.marks[0]?.x ?? 0, width - 230));
    plan.shapes.push(
      ...plan.marks.map(({ i, x, y, w, h }) => rect(x, y, w, h, shown.color(i) ?? "line")),
    );
    const shapes = lines.map((text, k) => words(2, 14 + 16 * k, text.trim(), { weight: 600 }));
    const heading = { width, height: top, shapes };
    const key = legend(this.figures.text, shown, width - left);
    return { width, height: plan.height + top + 34, description: title,
      parts: [[heading, 0, 0], [plan, 0, top], [key, left, plan.height + top + 6]] };
  }
}

// Return the scale of colors with its ends as a picture of a width.
function legend(text, { metric, low, high, isFitted }, width) {
  const write = (end) => metric.kind === "share" ? text.level(end) : text.value(end, metric.kind);
  const [from, to] = [low, high].map(write);
  const range = metric.signed ? `±${to.replace("+", "")}` : `${from.replace(/ %$/, "")}–${to}`;
  const note = isFitted ? text.say("colors_note", { range }) : "";
  const beside = LETTER * Math.max(metric.label.length + 1, note.length);
  const bar = Math.max(80, Math.min(240, width - 12 - beside));
  const steps = 40;
  const colors = [...Array(steps).keys()].map((k) =>
    rect((k * bar) / steps, 2, bar / steps + (k + 1 < steps ? 0.5 : 0), 10,
      colorOf((k + 0.5) / steps, metric.signed))
  );
  const title = clip(metric.label, Math.floor((width - bar - 12) / 6.7));
  return { width, height: 30,
    shapes: [...colors, small(0, 25, from), small(bar, 25, to, { anchor: "end" }),
      words(bar + 12, 12, title, { tip: metric.label }), small(bar + 12, 25, note)] };
}
