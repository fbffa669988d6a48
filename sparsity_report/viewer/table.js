// The table of layers: rows exist only where they are seen.
import { inert, make, quoted } from "./elements.js";
import { known } from "./numbers.js";

// Height of a row, and rows beyond the edges.
const [ROW, BEYOND] = [26, 8];

// Return the columns of the state: key, title, value of a layer, and its text.
export function columns(figures, state) {
  const { text, modules } = figures;
  const name = { key: "module", title: text.say("layer"), value: (i) => modules.names[i],
    write: (i) => figures.short(i) };
  const keys = figures.isPair
    ? figures.metrics.map(({ key }) => key)
    : ["sparsity", "deviation", "total", "nonzero", "flops_per_token", "stored_bytes",
      "bytes_ratio"];
  if (!keys.includes(state.metric)) keys.splice(1, 0, state.metric);
  return [name, ...keys.map((key) => {
    const metric = figures.metric({ ...state, metric: key });
    const value = (i) => figures.value(metric, [i]);
    return { key, title: metric.label, value, write: (i) => text.value(value(i), metric.kind) };
  })];
}

// Return layers in the order of a column; unknown values are last.
export function sorted(members, column, down) {
  if (!column) return members;
  // Zeros before numbers sort block 2 before block 10, as in_view of view_state.py does.
  const key = (value) =>
    typeof value === "string"
      ? value.replace(/[0-9]+/g, (digits) => digits.padStart(9, "0"))
      : value;
  const values = new Map(members.map((i) => [i, key(column.value(i))]));
  const order = (a, b) => (a < b ? -1 : Number(a > b));
  return [...members].sort((one, other) => {
    const [a, b] = [values.get(one), values.get(other)];
    return known(a) && known(b)
      ? (down ? order(b, a) : order(a, b))
      : Number(known(b)) - Number(known(a));
  });
}

// Return the rows as text with a separator; formulas of spreadsheets become text.
export function asText(columnList, members, separator) {
  const cell = (value) => {
    const text = known(value) ? (typeof value === "string" ? inert(value) : String(value)) : "";
    return separator === "\t" ? text.replace(/[\t\r\n]/g, " ") : quoted(text);
  };
  const rows = members.map((i) => columnList.map(({ value }) => cell(value(i))));
  return [columnList.map(({ key }) => key), ...rows].map((row) => row.join(separator)).join("\r\n");
}

export class Table {
  constructor(place, figures, store) {
    this.figures = figures;
    this.store = store;
    this.head = make("div", { className: "sv-head", role: "row" });
    this.body = make("div", { className: "sv-rows", role: "rowgroup" });
    this.box = make("div", { className: "sv-table", role: "grid", tabIndex: 0,
      ariaLabel: figures.text.say("table") },
      make("div", { className: "sv-top", role: "rowgroup" }, this.head), this.body);
    place.append(this.box);
    this.box.addEventListener("scroll", () => this.draw());
    this.box.addEventListener("click", (event) => this.click(event));
    this.box.addEventListener("keydown", (event) => this.key(event));
  }

  update(state) {
    this.state = state;
    this.columns = columns(this.figures, state);
    const key = state.sort.replace("-", "");
    const down = state.sort.startsWith("-");
    this.rows = sorted(this.figures.matching(state),
      this.columns.find((column) => column.key === key), down);
    const titles = this.columns.map(({ title }) => title).join("\n");
    if (this.titles !== titles) {
      this.titles = titles;
      this.head.replaceChildren(...this.columns.map(({ key: column, title }) => {
        const attributes = { "data-sort": column };
        return make("div", { role: "columnheader" },
          make("button", { type: "button", tabIndex: -1, textContent: title, attributes }));
      }));
    }
    [...this.head.children].forEach((cell, k) => {
      const isSorted = this.columns[k].key === key;
      cell.setAttribute("aria-sort", isSorted ? (down ? "descending" : "ascending") : "none");
    });
    this.box.style.setProperty("--sv-columns", this.columns.length - 1);
    this.box.setAttribute("aria-rowcount", this.rows.length + 1);
    this.body.style.height = `${ROW * this.rows.length}px`;
    this.draw();
  }

  draw() {
    const selected = new Set(this.state.selection);
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - BEYOND);
    const last = Math.min(this.rows.length,
      first + Math.ceil((this.box.clientHeight || 200) / ROW) + 2 * BEYOND);
    const shown = this.rows.slice(first, last).map((i, k) => {
      const cells = this.columns.map(({ write }, column) =>
        make("div", { role: column ? "gridcell" : "rowheader", textContent: write(i),
          title: column ? "" : this.figures.nameOf(i) })
      );
      const row = make("div", { className: i === this.state.detail ? "sv-row sv-detail" : "sv-row",
        role: "row", ariaRowIndex: first + k + 2, ariaSelected: selected.has(i),
        attributes: { "data-row": i } }, ...cells);
      row.style.top = `${ROW * (first + k)}px`;
      return row;
    });
    this.body.replaceChildren(...shown);
  }

  click(event) {
    const sort = event.target.closest("[data-sort]")?.dataset.sort;
    if (sort !== undefined) {
      const before = this.state.sort;
      const opposite = before === `-${sort}` ? sort : before === sort ? "" : `-${sort}`;
      return this.store.set({ sort: opposite });
    }
    const row = event.target.closest("[data-row]");
    if (row) {
      this.store.select([Number(row.dataset.row)],
        event.shiftKey || event.metaKey || event.ctrlKey);
    }
  }

  // Arrow keys move through the rows; the row of the details follows.
  key(event) {
    const at = this.rows.indexOf(this.state.detail);
    const page = Math.floor(this.box.clientHeight / ROW) - 2;
    const to =
      { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0,
        End: this.rows.length - 1 }[event.key];
    if (to === undefined || !this.rows.length) return;
    event.preventDefault();
    const place = Math.max(0, Math.min(this.rows.length - 1, to));
    this.store.select([this.rows[place]], false, true);
    this.reveal(place);
  }

  reveal(place) {
    const [top, room] = [ROW * place, this.box.clientHeight - 2 * ROW];
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top > this.box.scrollTop + room) this.box.scrollTop = top - room;
  }
}
