// Copies of a table as CSV. Numbers have no thousands separators, and column heads hold the units.
import { inert, make, quoted } from "../elements.js";
import { words } from "./words.js";

const NUMBER = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i;
const UNKNOWN = "–";

// Button that copies all rows of a table, or the matching rows of a searchable one.
export function copies(table, rows = (body) => [...body.rows]) {
  const button = make("button", { type: "button" }, words.copy);
  button.addEventListener("click", () => copy(toCsv(grid(table, rows)), button));
  return make("div", { className: "tools" }, button);
}

// Contents of a table: heads, and for each row its cells or a title across all columns.
function grid(table, rows) {
  const heads = [...table.tHead.rows[0].cells].map(head);
  const lines = [...table.tBodies].flatMap((body) =>
    rows(body).map((row) =>
      row.cells.length === 1 && heads.length > 1
        ? { title: row.textContent }
        : { cells: [...row.cells].map(read) }
    )
  );
  return { heads, lines };
}

const withUnit = (text, unit) => (unit ? `${text} / ${unit}` : text);
const head = (cell) => withUnit(cell.textContent.trim(), cell.dataset.u);

// Return a cell as [value, deviation]; both texts are empty if unknown.
function read(cell) {
  const note = cell.querySelector("small")?.textContent;
  const parts = [...cell.childNodes].filter((node) => node.nodeName !== "SMALL");
  const name = cell.querySelector("bdi") !== null;
  let text = (cell.dataset.v ?? parts.map((node) => node.textContent).join("")).replace(/\s+/g,
    " ");
  if (!name) text = text.replace(/(?<=\d) (?=\d{3}(?!\d))/g, "");
  const sides = text.split(" ± ");
  if (!name && sides.every((side) => NUMBER.test(side))) return [sides[0], sides[1] ?? ""];
  text = withUnit(note ? `${text} (${note})` : text, cell.dataset.u);
  return [text === UNKNOWN ? "" : inert(text), ""];
}

function toCsv({ heads, lines }) {
  const titled = lines.some((line) => line.title !== undefined);
  const paired = heads.map((_, place) => lines.some(({ cells }) => cells?.[place][1]));
  const spread = (values) => values.flatMap((value, place) => (paired[place] ? value : [value[0]]));
  const records = [[...(titled ? [""] : []),
    ...spread(heads.map((text) => [inert(text), inert(`${text} ±`)]))]];
  let title = "";
  for (const line of lines) {
    if (line.title !== undefined) title = inert(line.title);
    else records.push([...(titled ? [title] : []), ...spread(line.cells)]);
  }
  return records.map((record) => `${record.map(quoted).join(",")}\n`).join("");
}

// Copy by the clipboard API, by the older command, or as a text field for manual copying.
async function copy(text, button) {
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { ariaLabel: words.copy, rows: 8, readOnly: true, value: text });
    button.closest(".tools").querySelector("textarea")?.remove();
    button.closest(".tools").append(area);
    area.select();
    copied = document.execCommand("copy");
    if (copied) {
      area.remove();
      button.focus();
    }
  }
  say(copied ? words.copied : words.by_hand);
  if (!copied || button.dataset.name) return;
  button.dataset.name = button.textContent;
  button.textContent = words.copied;
  setTimeout(() => {
    button.textContent = button.dataset.name;
    delete button.dataset.name;
  }, 1500);
}

// Announce a text to screen readers only.
function say(text) {
  const place = document.getElementById("said");
  place.textContent = "";
  place.textContent = text;
}
