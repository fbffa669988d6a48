// Copies of a table as CSV. Numbers have no thousands separators, and column heads hold the units.
import { copyText, inert, make, quoted } from "../elements.js";
import { words } from "./words.js";

const NUMBER = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i;
const UNKNOWN = "–";

// Return a button that copies the rows of a table; a searchable one has those that match.
export function copies(table) {
  const button = make("button", { type: "button", textContent: words.copy,
    on: { click: () => copy(asCsv(table), button) } });
  return make("div", { className: "tools" }, button);
}

const withUnit = (text, unit) => (unit ? `${text} / ${unit}` : text);

// Return a cell as [value, deviation]; both texts are empty if unknown.
function read(cell) {
  const note = cell.querySelector("small")?.textContent;
  const parts = [...cell.childNodes].filter((node) => node.nodeName !== "SMALL");
  const isName = cell.querySelector("bdi") !== null;
  let text = (cell.dataset.v ?? parts.map((node) => node.textContent).join("")).replace(/\s+/g,
    " ");
  if (!isName) text = text.replace(/(?<=\d) (?=\d{3}(?!\d))/g, "");
  const sides = text.split(" ± ");
  if (!isName && sides.every((side) => NUMBER.test(side))) return [sides[0], sides[1] ?? ""];
  text = withUnit(note ? `${text} (${note})` : text, cell.dataset.u);
  return [text === UNKNOWN ? "" : inert(text), ""];
}

// Return a table as CSV. Rows below a title across all columns have it as their first field.
function asCsv(table) {
  const heads = [...table.tHead.rows[0].cells].map((cell) => {
    const text = inert(withUnit(cell.textContent.trim(), cell.dataset.u));
    return [text, `${text} ±`];
  });
  const lines = [{ title: "", cells: heads }];
  let title = "";
  for (const { cells, textContent } of [...table.tBodies].flatMap(({ rows }) => [...rows])) {
    if (cells.length === 1 && heads.length > 1) title = inert(textContent);
    else lines.push({ title, cells: [...cells].map(read) });
  }
  const isPaired = heads.map((_, k) => lines.slice(1).some(({ cells }) => cells[k][1]));
  const fields = (line) => line.cells.flatMap((cell, k) => (isPaired[k] ? cell : [cell[0]]));
  return lines.map((line) => [...(title ? [line.title] : []), ...fields(line)]).map((record) =>
    `${record.map(quoted).join(",")}\n`
  ).join("");
}

async function copy(text, button) {
  const isCopied = await copyText(text, words.copy, button.parentElement);
  // Screen readers announce the same text again after another one.
  const said = document.getElementById("said");
  said.textContent = "";
  said.textContent = isCopied ? words.copied : words.by_hand;
  if (!isCopied) return;
  button.textContent = words.copied;
  setTimeout(() => button.textContent = words.copy, 1500);
}
