import { make } from "../elements.js";
import { copies } from "./copies.js";
import { words } from "./words.js";

const THIN = "\u202f";
const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, THIN);

// Table with sorting and search.
export class SortedTable {
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
    this.search = make("input", { type: "search", placeholder: words.search,
      ariaLabel: words.search });
    this.search.addEventListener("input", () => this.filter());
    this.said = make("span", { role: "status" });
    const copied = copies(element, () => this.shown.map(({ row }) => row));
    element.closest(".scroll").before(
      make("div", { className: "find" }, this.search, this.said, copied),
    );
    this.draw();
  }

  // Return the sort key of a cell: its number, the product of a shape, or text; null if unknown.
  static key(cell) {
    const plain = cell.replace(/[\s<>%]/g, "");
    if (plain === "–") return null;
    const sides = plain.split("×").map(Number);
    return sides.some(Number.isNaN) ? cell : sides.reduce((product, side) => product * side, 1);
  }

  sort(column, down = this.heads[column].getAttribute("aria-sort") === "ascending") {
    this.heads.forEach((head) => head.removeAttribute("aria-sort"));
    this.heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = new Intl.Collator(document.documentElement.lang, { numeric: true });
    const keys = new Map(this.rows.map((row) => [row, SortedTable.key(row.cells[column])]));
    const rising = (a, b) =>
      typeof a === "number" && typeof b === "number" ? a - b : order.compare(a, b);
    const by = (a, b) => (down ? rising(b, a) : rising(a, b));
    this.rows.sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      return a === null || b === null ? Number(a === null) - Number(b === null) : by(a, b);
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
    this.said.textContent = `${count(this.shown.length)} ${words.of} ${
      count(this.rows.length)
    } ${words.rows}`;
  }
}
