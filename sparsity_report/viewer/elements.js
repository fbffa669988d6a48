// Elements of a page, files to save, and texts that spreadsheets do not read as formulas.
import formula from "../study/files/formula.json" with { type: "json" };

// Create an element from properties, attributes and listeners; strings become text, never markup.
export function make(tag, options = {}, ...children) {
  const { attributes = {}, on = {}, ...rest } = options;
  const made = Object.assign(document.createElement(tag), rest);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  for (const [event, act] of Object.entries(on)) made.addEventListener(event, act);
  made.append(...children.filter(Boolean));
  return made;
}

/**
 * Create a menu; options are [value, text, reason why it is disabled], or a text with its options.
 * @param {(value: string) => unknown} act
 */
export function menu(className, label, options, act = () => undefined) {
  const made = make("select", { className, title: label, ariaLabel: label,
    on: { change: () => act(made.value) } });
  const option = ([value, text, reason]) =>
    make("option", { value, textContent: reason ? `${text} (${reason})` : text,
      disabled: Boolean(reason) });
  made.append(
    ...options.map((one) =>
      Array.isArray(one[1])
        ? make("optgroup", { label: one[0] }, ...one[1].map(option))
        : option(one)
    ),
  );
  return made;
}

// Return a safe part of a file name, as file_name of untrusted/display_text.py does.
export function fileName(text) {
  const letters = text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
  return letters.replace(/[^a-z0-9_]+/g, "-").slice(0, 100).replace(/^-+|-+$/g, "") || "unnamed";
}

export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const FORMULA = new RegExp(formula.pattern, "g");

// Keep spreadsheets from reading a text as a formula.
export const inert = (text) => text.replace(FORMULA, "'");

// Return a text as a field of a CSV file.
export const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
