// The page of a report: sorted and searched tables, copies, pictures, theme and address.
import { Address } from "./address.js";
import { addPictures } from "./chart_pictures.js";
import { copies } from "./copies.js";
import { addSorting } from "./sorted_table.js";
import { words } from "./words.js";

// Switch between the light and the dark theme; the system decides until the reader chooses.
function chooseScheme(button) {
  const root = document.documentElement;
  const night = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.scheme ?? (night.matches ? "dark" : "light")) === "dark";
  const set = (chosen) => {
    if (chosen === "light" || chosen === "dark") root.dataset.scheme = chosen;
    button.textContent = dark() ? words.light : words.dark;
  };
  button.addEventListener("click", () => set(dark() ? "light" : "dark"));
  night.addEventListener("change", set);
  set();
  return { get: () => root.dataset.scheme, set };
}

document.documentElement.classList.add("js");
for (const table of document.querySelectorAll("table.sortable")) addSorting(table);
const scheme = document.getElementById("scheme");
new Address(scheme && chooseScheme(scheme));
for (const table of document.querySelectorAll(".scroll > table:not(.sortable)")) {
  table.parentElement.after(copies(table));
}
addPictures();
