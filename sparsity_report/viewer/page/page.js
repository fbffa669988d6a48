// The page of a report: sorted and searched tables, copies, pictures, theme and address.
import { Address } from "./address.js";
import { Picture } from "./chart_pictures.js";
import { copies } from "./copies.js";
import { SortedTable } from "./sorted_table.js";
import { words } from "./words.js";

// Switch between the light and the dark theme; the system decides until the reader chooses.
function chooseScheme(button) {
  const root = document.documentElement;
  const night = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.scheme ?? (night.matches ? "dark" : "light")) === "dark";
  const name = () => (button.textContent = dark() ? words.light : words.dark);
  button.addEventListener("click", () => {
    root.dataset.scheme = dark() ? "light" : "dark";
    name();
  });
  night.addEventListener("change", name);
  name();
  return { get: () => root.dataset.scheme, set: (chosen) => {
    if (chosen !== "light" && chosen !== "dark") return;
    root.dataset.scheme = chosen;
    name();
  } };
}

document.documentElement.classList.add("js");
for (const table of document.querySelectorAll("table.sortable")) new SortedTable(table);
const scheme = document.getElementById("scheme");
new Address(scheme && chooseScheme(scheme));
for (const table of document.querySelectorAll(".scroll > table:not(.sortable)")) {
  table.parentElement.after(copies(table));
}
Picture.all();
// Show all digits of a number or all letters of a name under the mouse pointer.
document.addEventListener("pointerover", ({ target }) => {
  const isElement = target instanceof Element;
  /** @type {HTMLElement | null} */
  const cell = isElement ? target.closest("td[data-v], th[data-v]") : null;
  if (cell && !cell.title) cell.title = cell.dataset.v;
});
