// Elements of a page, files to save, and texts that spreadsheets do not read as formulas.
import formula from "../study/files/formula.json" with { type: "json" };

// Set attributes of an element.
export function setAttributes(made, named) {
  for (const [key, value] of Object.entries(named)) made.setAttribute(key, value);
}

// Create an element from properties, attributes and listeners; strings become text, never markup.
export function make(tag, options = {}, ...children) {
  const { attributes = {}, on = {}, ...rest } = options;
  const made = Object.assign(document.createElement(tag), rest);
  setAttributes(made, attributes);
  for (const [event, act] of Object.entries(on)) made.addEventListener(event, act);
  made.append(...children.filter(Boolean));
  return made;
}

export const SVG = "http://www.w3.org/2000/svg";

// Create an element of a picture.
export function element(tag, named = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  setAttributes(made, named);
  made.append(...children);
  return made;
}

const listens = (part) => part instanceof SVGElement || part.querySelector?.("svg, [tabindex]");

// Show parts in a place. A text that is there already stays, and the selection in it.
export function show(place, ...parts) {
  const shown = parts.filter(Boolean);
  shown.forEach((part, k) => {
    const old = place.childNodes[k];
    // Listeners, which are not compared, are those of the new part.
    const stays = typeof part === "string" ? old?.nodeValue === part : part.isEqualNode(old);
    if (!old) place.append(part);
    else if (old !== part && (!stays || listens(part))) old.replaceWith(part);
  });
  while (place.childNodes.length > shown.length) place.lastChild.remove();
}

// True if an event adds to a selection, as a touch does.
export const isMore = ({ shiftKey, metaKey, ctrlKey, pointerType }) =>
  shiftKey || metaKey || ctrlKey || pointerType === "touch";

// True if a text is selected, which a click or a copy is then about.
export function isTextSelected(place) {
  const chosen = place.getRootNode().getSelection?.() ?? getSelection();
  return !chosen.isCollapsed && chosen.toString() !== "";
}

// Return the properties of a choice: [value, text, reason why it is disabled].
const choice = ([value, text, reason]) => ({ value, disabled: Boolean(reason),
  textContent: reason ? `${text} (${reason})` : text });

/**
 * Create a menu of choices; those of a group are [heading, choices].
 * @param {(value: string) => unknown} act
 */
export function menu(className, label, options, act = () => undefined) {
  const option = (one) =>
    Array.isArray(one[1])
      ? make("optgroup", { label: one[0] }, ...one[1].map(option))
      : make("option", choice(one));
  return make("select", { className, title: label, ariaLabel: label,
    on: { change: ({ target }) => act(target.value) } }, ...options.map(option));
}

/**
 * Create a button that opens a list of buttons: choices in groups, each [heading, choices].
 * @param {any[][]} groups
 * @param {(value: string) => unknown} act
 */
export function choices(className, text, title, groups, act) {
  const click = ({ target }) => {
    list.hidePopover();
    act(target.value);
  };
  const option = (one) => make("button", { type: "button", ...choice(one), on: { click } });
  const list = make("div", { className: "choices", popover: "auto" },
    ...groups.flatMap(([heading, options]) => [heading, ...options.map(option)]));
  const open = make("button", { type: "button", textContent: text, title,
    popoverTargetElement: list });
  // Escape closes the list, and is then for nothing else.
  const keydown = (event) => {
    if (event.key === "Escape" && list.matches(":popover-open")) event.stopPropagation();
  };
  return make("div", { className, on: { keydown } }, open, list);
}

// Return a safe part of a file name, as file_name of untrusted/display_text.py does.
export function fileName(text) {
  const letters = text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
  return letters.replace(/[^a-z0-9_]+/g, "-").slice(0, 100).replace(/^-+|-+$/g, "") || "unnamed";
}

// Copy by the clipboard API, by the older command, or show a text field for manual copying.
export async function copyText(value, ariaLabel, place) {
  try {
    await navigator.clipboard.writeText(value);
  } catch {
    const { activeElement } = place.getRootNode();
    const field = make("textarea", { ariaLabel, rows: 8, readOnly: true, value });
    place.querySelector("textarea")?.remove();
    place.append(field);
    field.select();
    if (!document.execCommand("copy")) return false;
    field.remove();
    activeElement?.focus();
  }
  return true;
}

const CONTROLS = /(?![\t\n\r])\p{Cc}/gu;

// Return pictures as the text of one SVG file.
export function svgFile(svgs,
  { description, width, height, fill, font = "", style = "", unit = "" })
{
  const file = element("svg", { width: `${width}${unit}`, height: `${height}${unit}`,
    viewBox: `0 0 ${width} ${height}`, "font-family": font, role: "img" },
    element("title", {}, description), element("style", {}, style),
    element("rect", { width, height, fill }), ...svgs);
  return new XMLSerializer().serializeToString(file).replace(CONTROLS, "");
}

// Return the text of an SVG file as a PNG, with `scale` pixels per unit.
export async function raster(text, scale) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const [width, height] = [image.width, image.height].map((side) => Math.round(scale * side));
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
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
