function start() {
  for (const details of document.querySelectorAll("details.roomy")) details.open = innerWidth >= 640;
  const scheme = document.getElementById("scheme");
  const tables = [...document.querySelectorAll("table.sortable")].map((table) => new Table(table));
  new Address(tables, scheme && chooseScheme(scheme));
  addEventListener("beforeprint", () => tables.forEach((table) => table.whole()));
  for (const table of document.querySelectorAll(".scroll > table:not(.sortable)")) {
    table.parentElement.after(copies(table));
  }
  Picture.all();
  // Show all digits of a number or all letters of a name under the mouse pointer.
  document.addEventListener("pointerover", ({ target }) => {
    const cell = target.closest?.("td[data-v], th[data-v]");
    if (cell && !cell.title) cell.title = cell.dataset.v;
  });
  for (const button of document.querySelectorAll("[data-file]")) {
    const { file } = button.dataset;
    button.addEventListener("click", async () => download(await unpacked(document.getElementById(file)).blob(), file));
  }
}

// Tables of many layers are packed; the viewer comes before them.
const packed = [...document.querySelectorAll("script.rows")];
const unpack = async (script) => Table.data.set(script, await unpacked(script).json());
function startPacked() {
  Promise.all(packed.splice(0).map(unpack)).then(start);
}
if (packed.length) {
  addEventListener("viewer-change", startPacked, { once: true });
  setTimeout(() => packed.length && startPacked(), 2000);
} else start();
