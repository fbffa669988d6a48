"use strict";
document.documentElement.classList.add("js");
{
const words = JSON.parse(document.getElementById("words").textContent);
const THIN = "\u202f";
const fixed = (number, digits) => number.toFixed(digits).replace(".", words.decimal);
const count = (number) =>
  number === null ? "–" : String(number).replace(/\B(?=(\d{3})+$)/g, THIN);
const times = (ratio) => (ratio === null ? "–" : `${fixed(ratio, 2)}${THIN}×`);

function percent(share, digits = 1) {
  if (share === null) return "–";
  const shown = 100 * share;
  const least = 10 ** -digits;
  if (0 < shown && shown < least / 2) return `<${THIN}${fixed(least, digits)}${THIN}%`;
  if (100 - least / 2 < shown && shown < 100) {
    return `>${THIN}${fixed(100 - least, digits)}${THIN}%`;
  }
  return `${fixed(shown, digits)}${THIN}%`;
}

function scaled(number, unit) {
  if (number === null) return "–";
  let step = 0;
  while (number >= 999.5 && step < 5) {
    number /= 1000;
    step += 1;
  }
  const digits = step === 0 || number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2;
  return `${fixed(number, digits)}${THIN}${["", "k", "M", "G", "T", "P"][step]}${words.units[unit] ?? unit}`;
}

/* An element; text is always text. */
function make(tag, attributes = {}, ...children) {
  const svg = "svg g rect text path circle title".split(" ").includes(tag);
  const made = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/* The colours of viridis, between eleven of them. */
const STOPS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70",
  "7ad151", "bddf26", "fde725"].map((hex) => hex.match(/../g).map((part) => Number.parseInt(part, 16)));
function viridis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  const mixed = STOPS[low].map((part, i) => Math.round(part + (at - low) * (STOPS[low + 1][i] - part)));
  return `rgb(${mixed})`;
}

/* Charts of Vega, drawn when they come near the window. */
function drawCharts() {
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      const spec = JSON.parse(target.querySelector("script").textContent);
      // What is not there yet cannot be measured.
      const fonts = ["400", "700"].map((weight) => document.fonts.load(`${weight} 9px ${spec.config.font}`));
      const options = { mode: "vega-lite", renderer: "svg", ast: true, actions: false };
      Promise.all(fonts).then(() => vegaEmbed(target.querySelector(".live"), spec, options)).then(
        () => target.classList.add("is-live"),
        console.error,
      );
    }
  }, { rootMargin: "100%" });
  for (const figure of document.querySelectorAll("figure")) near.observe(figure);
}

/* Tables that sort and search; rows stand in the page, or come as columns of data. */
class Table {
  static LIMIT = 200;
  static first = {};

  constructor(element) {
    this.body = element.tBodies[0];
    this.heads = [...element.tHead.rows[0].cells];
    const data = element.closest("details")?.querySelector("script.rows");
    this.rows = data ? this.fromData(JSON.parse(data.textContent)) : this.fromPage();
    this.limit = data ? Table.LIMIT : Infinity;
    this.shown = this.rows;
    this.heads.forEach((head, column) => {
      const button = make("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => this.sort(column));
      head.replaceChildren(button);
    });
    this.search = make("input", { type: "search", placeholder: words.search, "aria-label": words.search });
    this.search.addEventListener("input", () => this.filter());
    this.said = make("span", { role: "status" });
    this.more = make("button", { type: "button" }, words.more);
    this.more.addEventListener("click", () => {
      this.limit += Table.LIMIT;
      this.draw();
    });
    element.closest(".scroll").before(make("div", { class: "find" }, this.search, this.said));
    element.closest(".scroll").after(make("div", { class: "find" }, this.more));
    this.draw();
  }

  fromPage() {
    return [...this.body.rows].map((row) => {
      const cells = [...row.cells].map((cell) => cell.textContent);
      return { cells, text: cells.slice(0, 4).join(" ").toLowerCase(), row };
    });
  }

  fromData(known) {
    const data = { ...Table.first, ...known };
    Table.first = Object.keys(Table.first).length ? Table.first : data;
    const { note, ...columns } = data;
    return note.map((small, i) => {
      const cells = Object.values(columns).map((texts) => texts[i]);
      return { cells, text: [small, ...cells.slice(0, 4)].join(" ").toLowerCase(), small, row: null };
    });
  }

  /* The row of a table for one row of data, made when it is first seen. */
  element(row) {
    if (row.row) return row.row;
    const head = make("th", { scope: "row" }, make("bdi", {}, row.cells[0]));
    if (row.small) head.append(make("small", {}, row.small));
    row.row = make("tr", {}, head, ...row.cells.slice(1).map((cell) => make("td", {}, cell)));
    return row.row;
  }

  /* What a cell sorts by: its number, of a shape the product, else its text; null is unknown. */
  static key(cell) {
    const plain = cell.replace(/[\s<>%]/g, "").replace(",", ".");
    if (plain === "–") return null;
    const sides = plain.split("×").map(Number);
    return sides.some(Number.isNaN) ? cell : sides.reduce((product, side) => product * side, 1);
  }

  sort(column) {
    const down = this.heads[column].getAttribute("aria-sort") === "ascending";
    this.heads.forEach((head) => head.removeAttribute("aria-sort"));
    this.heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = new Intl.Collator(document.documentElement.lang, { numeric: true });
    const keys = new Map(this.rows.map((row) => [row, Table.key(row.cells[column])]));
    const rising = (a, b) =>
      typeof a === "number" && typeof b === "number" ? a - b : order.compare(a, b);
    const by = (a, b) => (down ? rising(b, a) : rising(a, b));
    this.rows.sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      return a === null || b === null ? (a === null) - (b === null) : by(a, b);
    });
    this.filter();
  }

  filter() {
    const wanted = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.shown = this.rows.filter((row) => wanted.every((word) => row.text.includes(word)));
    this.draw();
  }

  find(text) {
    this.search.value = text;
    this.filter();
    this.body.closest("details").open = true;
    this.search.focus({ preventScroll: true });
    this.search.scrollIntoView({ block: "center" });
  }

  draw() {
    const rows = this.shown.slice(0, this.limit);
    this.body.replaceChildren(...rows.map((row) => this.element(row)));
    this.said.textContent = `${count(this.shown.length)} ${words.of} ${count(this.rows.length)} ${words.rows}`;
    this.more.parentElement.hidden = rows.length === this.shown.length;
  }
}

/* The slider: global magnitude pruning at every level, from sums that came with the page. */
class Slider {
  constructor(data, tables) {
    this.data = data;
    this.tables = tables;
    this.panel = document.querySelector(".slider");
    this.input = document.getElementById("level");
    this.shares = data.cells.zeros.map((steps, cell) => {
      let zeros = 0;
      return steps.map((step) => (zeros += step) / data.cells.total[cell]);
    });
    this.drawTicks();
    this.drawCells();
    this.drawBars();
    this.drawLines();
    this.input.addEventListener("input", () => this.show());
    this.show();
  }

  ratio(part, level) {
    const [here, whole] = [this.data[part][level], this.data[`dense_${part}`]];
    return here === null || !whole ? null : here / whole;
  }

  show() {
    const { data } = this;
    const level = Number(this.input.value);
    const values = {
      prunable_share: percent(data.zeros[level] / data.prunable),
      zeros: `${count(data.zeros[level])} ${words.of} ${count(data.prunable)}`,
      model_share: percent(data.model[level] === null ? null : data.model[level] / data.total),
      flops_ratio: times(this.ratio("flops", level)),
      flops: scaled(data.flops[level], "FLOPs"),
      dense_flops: scaled(data.dense_flops, "FLOPs"),
      bytes_ratio: times(this.ratio("bytes", level)),
      bytes: scaled(data.bytes[level], "B"),
      dense_bytes: scaled(data.dense_bytes, "B"),
    };
    for (const place of this.panel.querySelectorAll("[data-show]")) {
      place.textContent = values[place.dataset.show];
    }
    const asked = percent(data.levels[level], 0);
    document.getElementById("level-text").textContent = asked;
    this.input.setAttribute("aria-valuetext", `${asked}, ${words.csr} ${values.bytes_ratio}`);
    this.rects.forEach((rect, cell) => rect.setAttribute("fill", viridis(this.shares[cell][level])));
    this.bars.forEach(({ bar, text, group }) => {
      const share = group.zeros[level] / group.total;
      bar.style.width = `${100 * share}%`;
      text.textContent = percent(share);
    });
    this.now.setAttribute("d", `M${this.x(level)},0V${this.height}`);
    this.dots.forEach(({ dot, part }) => {
      const at = this.ratio(part, level);
      if (at !== null) dot.setAttribute("cy", this.y(at));
      dot.setAttribute("cx", this.x(level));
    });
    this.tell();
  }

  drawTicks() {
    const ticks = this.panel.querySelector(".ticks");
    const last = this.data.levels.at(-1);
    const place = (mark, share) => {
      mark.style.left = `${(100 * Math.min(share, last)) / last}%`;
      ticks.append(mark);
    };
    const free = [];
    for (const [name, share] of this.data.marks) {
      if (free.some((other) => Math.abs(other - share) < 0.12)) continue;
      free.push(share);
      const mark = make("button", { type: "button", tabindex: "-1" }, name);
      mark.addEventListener("click", () => {
        const away = this.data.levels.map((level) => Math.abs(level - share));
        this.input.value = away.indexOf(Math.min(...away));
        this.show();
      });
      place(mark, share);
    }
    if (this.data.break_even !== null) {
      const text = `${words.evens} ${percent(this.data.break_even)}`;
      place(make("span", { class: "even" }, text), this.data.break_even);
    }
  }

  drawCells() {
    const { cells } = this.data;
    this.rects = [];
    if (!cells.total.length) return;
    const short = cells.projections.map((n) => (n.length > 22 ? `${n.slice(0, 21)}…` : n));
    const left = 14 + 6.6 * Math.max(...short.map((name) => name.length));
    const wide = Math.min(40, (900 - left) / cells.blocks.length);
    const high = Math.max(10, Math.min(18, 400 / cells.projections.length));
    const [width, height] = [left + wide * cells.blocks.length, high * cells.projections.length];
    const labels = cells.projections.map((name, row) => {
      return make("text", { x: left - 8, y: high * (row + 0.5) + 3, "text-anchor": "end" },
        short[row], make("title", {}, name));
    });
    const every = Math.ceil(cells.blocks.length / 24);
    const numbers = cells.blocks.map((block, column) => column % every ? "" : make("text",
      { x: left + wide * (column + 0.5), y: height + 15, "text-anchor": "middle" }, block));
    this.rects = cells.total.map((_, cell) => make("rect", {
      x: left + wide * cells.block[cell], y: high * cells.projection[cell],
      width: wide, height: high, "data-cell": cell,
    }));
    this.frame = make("rect", { class: "frame", style: "display:none" });
    const key = Array.from({ length: 51 }, (_, step) => make("rect",
      { x: left + 3 * step, y: height + 26, width: 3.2, height: 8, fill: viridis(step / 50), style: "stroke:none" }));
    const ends = [[0, "end", -6], [1, "start", 160]].map(([share, anchor, dx]) => make("text",
      { x: left + dx, y: height + 34, "text-anchor": anchor }, `${percent(share, 0)} ${share ? words.zeros : ""}`));
    const picture = make("svg", { viewBox: `0 0 ${Math.max(width, 360)} ${height + 38}`, role: "img",
      "aria-label": `${words.zeros}: ${words.block} × ${cells.projections.length}`,
      class: cells.module ? "named" : "" },
      ...labels, ...numbers.filter(Boolean), ...this.rects, this.frame, ...key, ...ends);
    picture.style.maxWidth = `${Math.max(width, 360) * 1.3}px`;
    picture.addEventListener("pointerover", ({ target }) => this.choose(target.dataset?.cell));
    picture.addEventListener("pointerleave", () => this.choose());
    picture.addEventListener("click", ({ target }) => {
      const module = cells.module?.[target.dataset?.cell];
      if (module !== undefined) this.tables.at(-1).find(module);
    });
    this.panel.querySelector(".cells").append(picture);
  }

  choose(cell) {
    this.chosen = cell;
    for (const side of cell === undefined ? [] : ["x", "y", "width", "height"]) {
      this.frame.setAttribute(side, this.rects[cell].getAttribute(side));
    }
    this.frame.style.display = cell === undefined ? "none" : "";
    this.tell();
  }

  tell() {
    const { data: { cells, levels }, chosen, input } = this;
    const said = this.panel.querySelector(".pointed");
    if (chosen === undefined) {
      said.textContent = "";
      this.own.setAttribute("d", "");
      return;
    }
    const shares = this.shares[chosen];
    const now = shares[input.value];
    const [block, projection] = [cells.blocks[cells.block[chosen]], cells.projections[cells.projection[chosen]]];
    const zeros = Math.round(now * cells.total[chosen]);
    said.textContent = `${words.block} ${block}, ${projection}: ${percent(now)} ${words.zeros}, `
      + `${count(zeros)} ${words.of} ${count(cells.total[chosen])}`
      + (cells.module ? ` (${words.layer})` : "");
    this.own.setAttribute("d", `M${levels.map((_, i) => `${this.x(i)},${this.y(shares[i])}`).join("L")}`);
  }

  drawBars() {
    const place = this.panel.querySelector(".bars");
    this.bars = this.data.groups.map((group) => {
      const bar = make("i");
      const text = make("b");
      place.append(make("p", {}, group.name, make("span", {}, bar), text));
      return { bar, text, group };
    });
  }

  drawLines() {
    const { levels, break_even: even } = this.data;
    const [width, height] = [300, 150];
    const parts = ["bytes", "flops"].filter((part) => this.ratio(part, 0) !== null);
    const tops = parts.map((part) => Math.max(...levels.map((_, i) => this.ratio(part, i))));
    const top = Math.max(1.1, ...tops);
    this.height = height;
    this.x = (level) => (width * levels[level]) / levels.at(-1);
    this.y = (ratio) => height * (1 - ratio / top);
    const line = (part) => make("path", { class: part,
      d: `M${levels.map((_, i) => `${this.x(i)},${this.y(this.ratio(part, i))}`).join("L")}` });
    const text = (x, y, said, more = {}) => make("text", { x, y, ...more }, said);
    const grid = [0, 0.5, 1, 1.5, 2, 2.5, 3].filter((at) => at <= top).flatMap((at) => [
      make("path", { class: at === 1 ? "dense" : "axis", d: `M0,${this.y(at)}H${width}` }),
      text(-6, this.y(at) + 3, times(at).replace(/[.,]00/, "").replace(/([.,]\d)0/, "$1"), { "text-anchor": "end" })]);
    const ticks = [0, 0.2, 0.4, 0.6, 0.8].map((at) =>
      text((width * at) / levels.at(-1), height + 15, percent(at, 0), { "text-anchor": "middle" }));
    this.now = make("path", { class: "now" });
    this.own = make("path", { class: "one" });
    this.dots = parts.map((part) => ({ part, dot: make("circle", { class: part, r: 4 }) }));
    const names = { bytes: words.csr, flops: words.flops };
    const legend = [["dense", words.dense], ...parts.map((part) => [part, names[part]])]
      .flatMap(([part, name], row) => [
        make("path", { class: part, d: `M${row * 92},-22h16` }),
        text(row * 92 + 20, -19, name, { class: part })]);
    const mark = even === null ? [] : [make("path", { class: "one",
      d: `M${(width * even) / levels.at(-1)},${this.y(1) - 8}v16` })];
    this.panel.querySelector(".lines").append(make("svg", { viewBox: `-32 -34 ${width + 42} ${height + 72}`, role: "img",
      "aria-label": `${names.bytes}, ${names.flops} ${words.ratio}` },
      ...grid, ...ticks, ...parts.map(line), ...mark, this.own, this.now,
      ...this.dots.map(({ dot }) => dot), ...legend,
      text(width / 2, height + 32, words.pruned, { "text-anchor": "middle" })));
  }
}

drawCharts();
const tables = [...document.querySelectorAll("table.sortable")].map((table) => new Table(table));
const data = document.getElementById("slider-data");
if (data) new Slider(JSON.parse(data.textContent), tables);
for (const details of document.querySelectorAll("details.levels")) details.open = false;
}
