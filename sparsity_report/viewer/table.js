// The table of layers: rows exist only where they are seen.
import { inert, isMore, isTextSelected, make, quoted, show } from "./elements.js";
import { known, ordered } from "./numbers.js";

const clamped = (place, last) => Math.max(0, Math.min(last, place));

// Height of a row, rows beyond the edges, and width of the names beside columns that scroll.
const [ROW, BEYOND, NAME] = [26, 4, 160];

// Titles of figures of both sides beside each other.
const OF_SIDES = { sparsity: "of_a", sparsity_b: "of_b", difference: "a_minus_b", total: "",
  stored_bytes: "of_a", stored_bytes_b: "of_b" };
const OF_STUDY = ["sparsity", "deviation", "total", "nonzero", "flops_per_token", "stored_bytes",
  "bytes_ratio"];

// Return a column: key, title, value of a layer, and its text.
function columnOf(figures, state, key) {
  const { modules: { names }, text } = figures;
  if (key === "module") {
    return { key, title: text.say("layer"), value: (i) => names[i], write: (i) =>
      figures.short(i) };
  }
  const metric = figures.metric({ ...state, metric: key });
  const side = figures.compares(state) && OF_SIDES[key];
  return { key, tip: metric.note,
    title: side ? text.say(side, { metric: metric.label, a: "A", b: "B" }) : metric.label,
    value: (i) => figures.value(metric, [i]), write: (i) => figures.write(metric, [i]) };
}

function columns(figures, state) {
  const usual = figures.isPair ? figures.metrics.map(({ key }) => key) : OF_STUDY;
  const added = usual.includes(state.metric) ? [] : [state.metric];
  const keys = figures.compares(state)
    ? Object.keys(OF_SIDES)
    : [usual[0], ...added, ...usual.slice(1)];
  return ["module", ...keys].map((key) => columnOf(figures, state, key));
}

// Return layers in the order of the state, "-" for descending.
export function sorted(figures, state, members) {
  if (!state.sort) return members;
  const { value } = columnOf(figures, state, state.sort.replace("-", ""));
  return ordered(members, value, !state.sort.startsWith("-"));
}

// Names that `explorer.layers()` gives to columns; its `sparsity` counts biases too.
const NAMES = { module: "module_name", sparsity: "weight_sparsity",
  sparsity_b: "weight_sparsity_b" };

// Return the columns of a copy for what the screen writes as ±: uncertain weights of a level.
export const uncertainties = (figures, state) =>
  figures.isPair ? [] : figures.views(state).flatMap((side, k) => {
    const { slack } = figures.counts(side);
    return slack ? [{ key: ["uncertainty", "uncertainty_b"][k], value: (i) => slack[i] }] : [];
  });

// Return the rows as text with a separator; formulas of spreadsheets become text.
export function asText(columnList, members, separator) {
  const cell = (value) => {
    const text = known(value) ? (typeof value === "string" ? inert(value) : String(value)) : "";
    return separator === "\t" ? text.replace(/[\t\r\n]/g, " ") : quoted(text);
  };
  // Spreads are known to two digits.
  const digits = { deviation: (value) => Number(value?.toPrecision(2)) };
  const rows = members.map((i) =>
    columnList.map(({ key, value }) => cell((digits[key] ?? ((one) => one))(value(i))))
  );
  const heads = columnList.map(({ key }) => NAMES[key] ?? key);
  return [heads, ...rows].map((row) => row.join(separator)).join("\r\n");
}

export class Table {
  // Values of the state that the table does not show.
  unused = ["panel", "grouping", "colors"];
  top = 0;
  room = 0;
  width = 0;

  constructor(place, figures, store, redraw) {
    const { text } = figures;
    this.figures = figures;
    this.store = store;
    // Rows that are drawn, by layer.
    this.drawn = new Map();
    this.head = make("div", { className: "sv-head", role: "row", ariaRowIndex: 1 });
    this.body = make("div", { className: "sv-rows", role: "rowgroup" });
    this.said = make("span");
    this.none = make("div", { className: "sv-none", role: "rowgroup" },
      make("div", { role: "row" }, make("div", { role: "gridcell" }, this.said)));
    this.box = make("div", { className: "sv-table", role: "grid", tabIndex: 0,
      ariaLabel: text.say("table"), ariaMultiSelectable: "true", on: {
        scroll: redraw,
        keydown: (event) => this.key(event),
        // Shift extends the selection of rows, not that of text.
        mousedown: (event) => event.shiftKey && event.preventDefault(),
      } }, make("div", { className: "sv-top", role: "rowgroup" }, this.head), this.body, this.none);
    // The grid names its row by an id, which is unique in a notebook of several viewers.
    this.id = `sv-${Math.random().toString(36).slice(2)}`;
    place.append(this.box);
  }

  measure() {
    const { scrollTop, clientHeight, clientWidth } = this.box;
    return [this.top, this.room, this.width] = [scrollTop, clientHeight, clientWidth];
  }

  // Arrange columns and rows for a state, unless it is the last one.
  arrange(state = this.store.state) {
    if (this.state === state) return;
    this.state = state;
    this.columns = columns(this.figures, state);
    this.rows = sorted(this.figures, state, this.figures.matching(state));
  }

  update(state) {
    const { figures: { text }, store } = this;
    this.arrange(state);
    const least = !this.figures.isPair && this.figures.counts(state).more ? 112 : 82;
    const titles = this.columns.map(({ title }) => title).join("\n");
    const fit = [this.width, least, titles].join("\n");
    if (this.titles !== titles) {
      this.titles = titles;
      this.drawn.clear();
      this.body.replaceChildren();
      this.head.replaceChildren(...this.columns.map(({ key, title, tip }) => {
        const about = [tip, text.say("sort_tip", { column: title })].filter(Boolean).join("\n");
        const attributes = { "data-sort": key, title: about };
        const next = { [`-${key}`]: key, [key]: "" };
        const click = () => store.set({ sort: next[store.state.sort] ?? `-${key}` });
        return make("div", { role: "columnheader" },
          make("button", { type: "button", tabIndex: -1, textContent: title, attributes,
            on: { click } }));
      }));
    }
    // Rows keep their elements, and the text selected in them, where only widths change.
    if (this.fit !== fit) {
      this.fit = fit;
      // Columns that do not fit are hidden as a whole, and the last row in view is whole.
      const [room, all, { style }] = [this.width - NAME, this.columns.length - 1, this.box];
      const fitting = Math.max(1, Math.floor(room / least));
      style.setProperty("--sv-columns", all);
      style.setProperty("--sv-cell", `${fitting < all ? room / fitting : least}px`);
      const edges = this.box.offsetHeight - this.box.clientHeight;
      style.setProperty("--sv-head", `${this.head.offsetHeight + edges}px`);
    }
    [...this.head.children].forEach((cell, k) => {
      const { key } = this.columns[k];
      const order = { [key]: "ascending", [`-${key}`]: "descending" };
      cell.setAttribute("aria-sort", order[state.sort] ?? "none");
    });
    this.box.setAttribute("aria-rowcount", this.rows.length + 1);
    this.body.style.height = `${ROW * this.rows.length}px`;
    this.draw();
  }

  draw() {
    const { state, columns: list, rows, figures: { text } } = this;
    const selected = new Set(state.selection);
    // Fewer rows than before end the scrolling above its last place.
    const top = Math.min(this.top, ROW * (rows.length + 1) - this.room);
    const first = Math.max(0, Math.floor(top / ROW) - BEYOND);
    const last = first + Math.ceil((this.room || 200) / ROW) + 2 * BEYOND;
    // Rows that stay keep their elements, and the text selected in them.
    const seen = rows.slice(first, last);
    const drawn = new Map(seen.map((i) => [i, this.drawn.get(i) ?? this.row(i)]));
    for (const [i, row] of this.drawn) if (!drawn.has(i)) row.remove();
    this.drawn = drawn;
    let next = this.body.firstChild;
    [...drawn].forEach(([i, row], k) => {
      if (row === next) next = row.nextSibling;
      else this.body.insertBefore(row, next);
      list.forEach(({ write }, column) => show(row.children[column], write(i)));
      row.classList.toggle("sv-detail", i === state.detail);
      Object.assign(row, { ariaRowIndex: first + k + 2, ariaSelected: selected.has(i) });
      row.style.top = `${ROW * (first + k)}px`;
    });
    this.box.setAttribute("aria-activedescendant", drawn.get(state.detail)?.id ?? "");
    this.none.hidden = rows.length > 0;
    show(this.said, text.say(state.search ? "no_match" : "no_rows", state));
  }

  row(i) {
    const name = { role: "rowheader", title: this.figures.nameOf(i) };
    const cells = this.columns.map((_, k) => make("div", k ? { role: "gridcell" } : name));
    const attributes = { "data-row": i, role: "row", id: `${this.id}-${i}` };
    const click = (event) => {
      if (event.shiftKey) this.move(this.rows.indexOf(i), true);
      else if (!isTextSelected(this.box)) this.store.select([this.from = i], isMore(event));
    };
    return make("div", { className: "sv-row", attributes, on: { click } }, ...cells);
  }

  // Arrow keys move through the rows and the header above them.
  key(event) {
    this.arrange();
    const { rows, store, box } = this;
    const { target, key, shiftKey } = event;
    const heads = [...this.head.querySelectorAll("button")];
    const head = heads.indexOf(target);
    const at = head < 0 ? rows.indexOf(store.state.detail) : -1;
    const page = Math.floor(box.clientHeight / ROW) - 2;
    const ends = { Home: -Infinity, End: Infinity };
    const down = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, ...ends }[key];
    const across = { ArrowLeft: -1, ArrowRight: 1, ...ends }[key];
    const isMore = event.ctrlKey || event.metaKey;
    if (head >= 0 && across) heads[clamped(head + across, heads.length - 1)].focus();
    else if (key === "ArrowUp" && at <= 0) heads[Math.max(0, head)].focus();
    else if (down) this.move(at + down, shiftKey, isMore);
    else if (isMore && key.toLowerCase() === "a") store.select(rows, false, true);
    else if (target === box && at >= 0 && [" ", "Enter"].includes(key)) {
      store.select([rows[at]], shiftKey || isMore, !shiftKey && !isMore);
    } else return;
    event.preventDefault();
  }

  // Move to a row and select it; `isRange` selects from the last single row on, `isOnly` none.
  move(to, isRange = false, isOnly = false) {
    this.arrange();
    const { rows, store, store: { state }, box } = this;
    if (!rows.length) return;
    const place = clamped(to, rows.length - 1);
    if (!isRange) this.from = rows[place];
    else if (!state.selection.includes(this.from)) this.from = state.detail;
    const from = rows.includes(this.from) ? rows.indexOf(this.from) : place;
    const range = rows.slice(Math.min(from, place), Math.max(from, place) + 1);
    if (isOnly) store.set({ detail: rows[place] });
    else store.select(from > place ? range.reverse() : range, false, true);
    box.focus({ preventScroll: true });
    const [top, room] = [ROW * place, box.clientHeight - this.head.offsetHeight - ROW];
    box.scrollTop = Math.max(top - room, Math.min(top, box.scrollTop));
  }
}
