/* Copies of a table as CSV, LaTeX for booktabs, or Markdown. Numbers have no thousands separators, and
   column heads hold the units. Texts are escaped by the rules of the Python writers. */
const NUMBER = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i;
const UNKNOWN = "–";

/* Menu that copies all rows of a table, or the matching rows of a searchable one. */
function copies(table, rows = (body) => [...body.rows]) {
  const writers = { CSV: toCsv, LaTeX: toLatex, Markdown: toMarkdown };
  const choices = Object.entries(writers).map(([name, write]) => [
    name, (button) => copy(write(grid(table, rows)), button),
  ]);
  return menu(words.copy, Object.fromEntries(choices));
}

/* Contents of a table: heads, and for each row its cells or a title across all columns. */
function grid(table, rows) {
  const [first, second] = [...table.tHead.rows].map((row) =>
    [...row.cells].flatMap((cell) => Array(cell.colSpan).fill(head(cell))));
  const heads = second ? second.map((text, place) => [first[place], text].filter(Boolean).join(", ")) : first;
  const lines = [...table.tBodies].flatMap((body) => rows(body).map((row) =>
    row.cells.length === 1 && heads.length > 1
      ? { title: row.textContent }
      : { cells: [...row.cells].map(read) }));
  const cells = lines.filter((line) => line.cells).map((line) => line.cells);
  const numeric = heads.map((_, place) => place > 0 && cells.every((row) => row[place].number || row[place].unknown));
  return { caption: table.caption?.textContent ?? "", heads, lines, numeric };
}

const withUnit = (text, unit) => (unit ? `${text} / ${unit}` : text);
const head = (cell) => withUnit(cell.textContent.trim(), cell.dataset.u);

function read(cell) {
  const note = cell.querySelector("small")?.textContent;
  const parts = [...cell.childNodes].filter((node) => node.nodeName !== "SMALL");
  const name = cell.querySelector("bdi") !== null;
  let text = (cell.dataset.v ?? parts.map((node) => node.textContent).join("")).replace(/\s+/g, " ");
  if (!name) text = text.replace(/(?<=\d) (?=\d{3}(?!\d))/g, "");
  const sides = name ? [text] : text.split(" ± ");
  const number = !name && sides.every((side) => NUMBER.test(side));
  if (!number) text = withUnit(note ? `${text} (${note})` : text, cell.dataset.u);
  return { text, sides, number, unknown: text === UNKNOWN };
}

/* Round floats to six digits; keep integers. */
const short = (text) => (/^-?\d+$/.test(text) ? text : String(Number(Number(text).toPrecision(6))));

function toCsv({ heads, lines }) {
  const titled = lines.some((line) => line.title !== undefined);
  const paired = heads.map((_, place) => lines.some(({ cells }) => cells?.[place].number && cells[place].sides[1]));
  const spread = (values) => values.flatMap((value, place) => (paired[place] ? value : [value[0]]));
  const records = [[...(titled ? [""] : []), ...spread(heads.map((text) => [inert(text), inert(`${text} ±`)]))]];
  let title = "";
  for (const line of lines) {
    if (line.title !== undefined) title = inert(line.title);
    else {
      const values = line.cells.map(({ text, sides, number, unknown }) =>
        number ? [sides[0], sides[1] ?? ""] : [unknown ? "" : inert(text), ""]);
      records.push([...(titled ? [title] : []), ...spread(values)]);
    }
  }
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return records.map((record) => `${record.map(quoted).join(",")}\n`).join("");
}

/* Keep spreadsheets from reading a text as a formula. */
const inert = (text) => text.replace(new RegExp(escapes.formula, "g"), "$1'");

function toLatex({ caption, heads, lines, numeric }) {
  const cell = ({ text, sides, number, unknown }) => {
    const value = sides.map(short).join(" \\pm ");
    const plain = sides.length > 1 || value.startsWith("-") ? `$${value}$` : value;
    return number ? plain : unknown ? "\\textendash{}" : tex(text);
  };
  const line = ({ title, cells }) => title === undefined
    ? `${cells.map(cell).join(" & ")} \\\\`
    : `\\midrule\n\\multicolumn{${heads.length}}{l}{\\emph{${tex(title)}}} \\\\`;
  return [
    "\\begin{table}[htbp]", "\\centering", `\\caption{${tex(caption)}}`,
    `\\begin{tabular}{${numeric.map((right) => (right ? "r" : "l")).join("")}}`, "\\toprule",
    `${heads.map(tex).join(" & ")} \\\\`, ...(lines[0]?.title === undefined ? ["\\midrule"] : []),
    ...lines.map(line), "\\bottomrule", "\\end{tabular}", "\\end{table}", "",
  ].join("\n");
}

/* Same as tex() of report/tables/latex.py, without break marks in long words. */
function tex(text) {
  const words = text.replace(/\S+/g, (word) => ([...word].length > 80 ? `${[...word].slice(0, 79).join("")}…` : word));
  const held = new RegExp(escapes.held, "u");
  const readable = [...words].map((sign) => (sign in escapes.latex || held.test(sign) ? sign : spelled(sign))).join("");
  return [...readable].map((sign) => escapes.latex[sign] ?? sign).join("")
    .replace(/([-,'!?])(?=[-,'`])/g, "$1{}")
    .replace(/^(?=\s*[[*])/, "{}")
    .replace(/(\d) (?=\\%)/g, "$1~");
}

function spelled(sign) {
  const code = sign.codePointAt(0);
  const digits = (length) => code.toString(16).padStart(length, "0");
  return code < 0x100 ? `\\x${digits(2)}` : code < 0x10000 ? `\\u${digits(4)}` : `\\U${digits(8)}`;
}

function toMarkdown({ caption, heads, lines, numeric }) {
  const escaped = (text) => text.replace(/\s+/g, " ").replace(new RegExp(escapes.markdown, "g"), "\\$1");
  const cell = ({ text, sides, number }) => (number ? sides.map(short).join(" ± ") : escaped(text));
  const joined = (texts) => `| ${texts.join(" | ")} |`;
  const line = ({ title, cells }) => joined(
    cells?.map(cell) ?? [`**${escaped(title)}**`, ...Array(heads.length - 1).fill("")]);
  return [
    ...(caption ? [escaped(caption), ""] : []), joined(heads.map(escaped)),
    `|${numeric.map((right) => (right ? "---:" : ":---")).join("|")}|`, ...lines.map(line), "",
  ].join("\n");
}

/* Copy by the clipboard API, by the older command, or as a text field for manual copying. */
async function copy(text, button) {
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { "aria-label": words.copy, rows: 8, readonly: "" });
    area.value = text;
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

/* Announce a text to screen readers only. */
function say(text) {
  const place = document.getElementById("said");
  place.textContent = "";
  place.textContent = text;
}
