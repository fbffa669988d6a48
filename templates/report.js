document.documentElement.classList.add("js");
const words = JSON.parse(document.getElementById("words").textContent);
const THIN = "\u202f";
const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, THIN);

/* Create an element; strings become text, never markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/* Table with sorting and search. */
class Table {
  constructor(element) {
    this.body = element.tBodies[0];
    this.heads = [...element.tHead.rows[0].cells];
    this.rows = [...this.body.rows].map((row) => {
      const cells = [...row.cells].map((cell) => cell.textContent);
      return { cells, text: cells.slice(0, 4).join(" ").toLowerCase(), row };
    });
    this.shown = this.rows;
    this.heads.forEach((head, column) => {
      const button = make("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => this.sort(column));
      head.replaceChildren(button);
    });
    this.search = make("input", { type: "search", placeholder: words.search, "aria-label": words.search });
    this.search.addEventListener("input", () => this.filter());
    this.said = make("span", { role: "status" });
    const copied = copies(element, () => this.shown.map(({ row }) => row));
    element.closest(".scroll").before(make("div", { class: "find" }, this.search, this.said, copied));
    this.draw();
  }

  /* Return the sort key of a cell: its number, the product of a shape, or its text; null if unknown. */
  static key(cell) {
    const plain = cell.replace(/[\s<>%]/g, "").replace(",", ".");
    if (plain === "–") return null;
    const sides = plain.split("×").map(Number);
    return sides.some(Number.isNaN) ? cell : sides.reduce((product, side) => product * side, 1);
  }

  sort(column, down = this.heads[column].getAttribute("aria-sort") === "ascending") {
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

  draw() {
    this.body.replaceChildren(...this.shown.map(({ row }) => row));
    this.said.textContent = `${count(this.shown.length)} ${words.of} ${count(this.rows.length)} ${words.rows}`;
  }
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
