// The table of layers: rows exist only where they are seen.
import { known } from "./numbers.js";

// Height of a row, and rows beyond the edges.
const [ROW, BEYOND] = [26, 8];

// Return the columns of the state: key, title, value of a layer, and its text.
export function columns(figures, state) {
  const { text, modules } = figures;
  const name = { key: "module", title: text.say("layer"), value: (i) => modules.names[i], write: (i) => figures.short(i) };
  const keys = figures.isPair ? figures.metrics.map(({ key }) => key) : ["sparsity", "deviation", "total", "nonzero", "flops_per_token", "stored_bytes", "bytes_ratio"];
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
  const values = new Map(members.map((i) => [i, column.value(i)]));
  const order = typeof values.values().next().value === "string" ? new Intl.Collator("en", { numeric: true }).compare : (a, b) => a - b;
  return [...members].sort((one, other) => {
    const [a, b] = [values.get(one), values.get(other)];
    return known(a) && known(b) ? (down ? order(b, a) : order(a, b)) : known(b) - known(a);
  });
}

// Return the rows as text with a separator; formulas of spreadsheets become text.
export function asText(columnList, members, separator) {
  const cell = (value) => {
    let text = known(value) ? String(value) : "";
    if (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;
    if (separator === "\t") return text.replace(/[\t\r\n]/g, " ");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = members.map((i) => columnList.map(({ value }) => cell(value(i))));
  return [columnList.map(({ key }) => key), ...rows].map((row) => row.join(separator)).join("\r\n");
}

export class Table {
  constructor(place, figures, store) {
    Object.assign(this, { figures, store });
    const make = (className, role) => {
      const made = Object.assign(document.createElement("div"), { className });
      made.setAttribute("role", role);
      return made;
    };
    this.box = make("sv-table", "grid");
    this.box.tabIndex = 0;
    this.box.setAttribute("aria-label", figures.text.say("table"));
    this.head = make("sv-head", "row");
    this.body = make("sv-rows", "rowgroup");
    const top = make("sv-top", "rowgroup");
    top.append(this.head);
    this.box.append(top, this.body);
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
    this.rows = sorted(this.figures.matching(state), this.columns.find((column) => column.key === key), down);
    const titles = this.columns.map(({ title }) => title).join("\n");
    if (this.titles !== titles) {
      this.titles = titles;
      this.head.replaceChildren(...this.columns.map(({ key: column, title }) => {
        const button = Object.assign(document.createElement("button"), { type: "button", tabIndex: -1, textContent: title });
        button.dataset.sort = column;
        const cell = document.createElement("div");
        cell.setAttribute("role", "columnheader");
        cell.append(button);
        return cell;
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
    const last = Math.min(this.rows.length, first + Math.ceil((this.box.clientHeight || 200) / ROW) + 2 * BEYOND);
    const shown = this.rows.slice(first, last).map((i, k) => {
      const row = document.createElement("div");
      row.className = "sv-row";
      row.setAttribute("role", "row");
      row.setAttribute("aria-rowindex", first + k + 2);
      row.setAttribute("aria-selected", String(selected.has(i)));
      row.dataset.row = i;
      row.style.top = `${ROW * (first + k)}px`;
      if (i === this.state.detail) row.classList.add("sv-detail");
      row.append(...this.columns.map(({ write }, column) => {
        const cell = document.createElement("div");
        cell.setAttribute("role", column ? "gridcell" : "rowheader");
        cell.textContent = write(i);
        if (!column) cell.title = this.figures.nameOf(i);
        return cell;
      }));
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
    if (row) this.store.select([Number(row.dataset.row)], event.shiftKey || event.metaKey || event.ctrlKey);
  }

  // Arrow keys move through the rows; the row of the details follows.
  key(event) {
    const at = this.rows.indexOf(this.state.detail);
    const page = Math.floor(this.box.clientHeight / ROW) - 2;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.rows.length - 1 }[event.key];
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
