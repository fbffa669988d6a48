document.documentElement.classList.add("js");
const words = JSON.parse(document.getElementById("words").textContent);
const escapes = JSON.parse(document.getElementById("escapes").textContent);
const THIN = "\u202f";
const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, THIN);

/* Create an element; strings become text, never markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/* Table with sorting and search; its rows are in the page, or come as columns of data. */
class Table {
  static LIMIT = 200;
  static first = {};
  /* Unpacked data by the element that stores them. */
  static data = new Map();

  constructor(element) {
    this.body = element.tBodies[0];
    this.heads = [...element.tHead.rows[0].cells];
    const data = element.closest("details")?.querySelector("script.rows");
    this.rows = data ? this.fromData(Table.data.get(data)) : this.fromPage();
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
    const copied = copies(element, () => this.shown.map((row) => this.element(row)));
    element.closest(".scroll").before(make("div", { class: "find" }, this.search, this.said, copied));
    element.closest(".scroll").after(make("div", { class: "find" }, this.more));
    element.closest("details")?.addEventListener("toggle", () => this.draw());
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
    const { note, plain, ...columns } = data;
    const raw = Object.keys(columns).map((key) => plain[key] ?? []);
    return note.map((small, i) => {
      const cells = Object.values(columns).map((texts) => texts[i]);
      const values = raw.map((texts) => texts[i]);
      return { cells, values, text: [small, ...cells.slice(0, 4)].join(" ").toLowerCase(), small, row: null };
    });
  }

  /* Return the table row of a row of data, and create it on first use. */
  element(row) {
    if (row.row) return row.row;
    const head = make("th", { scope: "row" }, make("bdi", {}, row.cells[0]));
    if (row.small) head.append(make("small", {}, row.small));
    row.row = make("tr", {}, head, ...row.cells.slice(1).map((cell) => make("td", {}, cell)));
    row.values.forEach((value, place) => {
      if (value) row.row.cells[place].dataset.v = value;
    });
    return row.row;
  }

  /* Return the sort key of a cell: its number, the product of a shape, or its text; null if unknown. */
  static key(cell) {
    const plain = cell.replace(/[\s<>%]/g, "").replace(",", ".");
    if (plain === "–") return null;
    const sides = plain.split("×").map(Number);
    return sides.some(Number.isNaN) ? cell : sides.reduce((product, side) => product * side, 1);
  }

  sort(column, down = this.heads[column].getAttribute("aria-sort") === "ascending") {
    this.sorted = `${down ? "-" : ""}${column + 1}`;
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

  /* Draw the distribution of a share in its column head: all rows pale, matching rows solid. */
  spread() {
    if (this.body.closest("details")?.open === false) return;
    for (const head of this.heads.filter(({ dataset }) => dataset.u === "%")) {
      const keys = (rows) => rows.map((row) => Table.key(row.cells[head.cellIndex]));
      const [all, found] = [this.rows, this.shown].map((rows) => keys(rows).filter(Number.isFinite));
      head.querySelector("svg")?.remove();
      const [low, high] = [Math.min(...all), Math.max(...all)];
      if (low < high) head.firstChild.append(bars(low, high, all, found));
    }
  }

  /* Show all rows, for print. */
  whole() {
    this.limit = Infinity;
    this.draw();
  }

  draw() {
    // Rows of data are created when they are seen.
    if (this.limit === Table.LIMIT && this.body.closest("details")?.open === false) return;
    this.spread();
    const rows = this.shown.slice(0, this.limit);
    this.body.replaceChildren(...rows.map((row) => this.element(row)));
    this.said.textContent = `${count(this.shown.length)} ${words.of} ${count(this.rows.length)} ${words.rows}`;
    this.more.parentElement.hidden = rows.length === this.shown.length;
  }
}

/* Create a small histogram; later parts are drawn over earlier ones. */
function bars(low, high, ...parts) {
  const MANY = 14;
  const svg = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const counted = parts.map((figures) => {
    const bins = Array(MANY).fill(0);
    for (const figure of figures) bins[Math.min(MANY - 1, Math.floor(((figure - low) / (high - low)) * MANY))] += 1;
    return bins;
  });
  const most = Math.max(...counted[0]);
  const drawn = svg("svg", { class: "spread", viewBox: `0 0 ${MANY * 4} 16`, "aria-hidden": "true" });
  counted.forEach((bins, part) => bins.forEach((many, place) => {
    const height = many && 1 + (15 * many) / most;
    drawn.append(svg("rect", { x: 4 * place, y: 16 - height, width: 3, height, class: part ? "found" : "all" }));
  }));
  return drawn;
}

/* Switch between the light and the dark theme; the system decides until the reader chooses. */
function chooseScheme(button) {
  const root = document.documentElement;
  const night = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.scheme ?? (night.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? words.light : words.dark; };
  button.addEventListener("click", () => {
    root.dataset.scheme = dark() ? "light" : "dark";
    name();
  });
  night.addEventListener("change", name);
  name();
  return {
    get: () => root.dataset.scheme,
    set: (told) => {
      if (told !== "light" && told !== "dark") return;
      root.dataset.scheme = told;
      name();
    },
  };
}
