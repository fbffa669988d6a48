import { make } from "../elements.js";
import { ordered, thousands } from "../numbers.js";
import { copies } from "./copies.js";
import { words } from "./words.js";

// Return the sort key of a cell: its number, the product of a shape, or text; null if unknown.
function sortKey({ textContent }) {
  const plain = textContent.replace(/[\s<>%]/g, "");
  if (plain === "–") return null;
  const sides = plain.split("×").map(Number);
  return sides.some(Number.isNaN) ? textContent : sides.reduce((product, side) => product * side);
}

// Return the text of the first cells of a row, which a search looks at.
const textOf = ({ cells }) =>
  [...cells].slice(0, 4).map((cell) => cell.textContent).join(" ").toLowerCase();

// Add sorting, search and a copy to a table.
export function addSorting(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  let rows = [...body.rows];
  // Show the rows that have all words of the search.
  const draw = () => {
    const wanted = search.value.toLowerCase().split(/\s+/);
    const shown = rows.filter((row) => wanted.every((word) => textOf(row).includes(word)));
    body.replaceChildren(...shown);
    const [part, all] = [shown, rows].map(({ length }) => thousands(length));
    said.textContent = `${part} ${words.of} ${all} ${words.rows}`;
  };
  const sort = (head, column) => {
    const isRising = head.getAttribute("aria-sort") !== "ascending";
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isRising ? "ascending" : "descending");
    rows = ordered(rows, (row) => sortKey(row.cells[column]), isRising);
    draw();
  };
  heads.forEach((head, column) => {
    const click = () => sort(head, column);
    head.append(make("button", { type: "button", on: { click } }, ...head.childNodes));
  });
  const search = make("input", { type: "search", placeholder: words.search, ariaLabel: words.search,
    on: { input: draw } });
  const said = make("span", { role: "status" });
  const tools = make("div", { className: "find" }, search, said, copies(table));
  table.closest(".scroll").before(tools);
  draw();
}
