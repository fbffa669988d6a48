function start() {
  const scheme = document.getElementById("scheme");
  const tables = [...document.querySelectorAll("table.sortable")].map((table) => new Table(table));
  new Address(tables, scheme && chooseScheme(scheme));
  for (const table of document.querySelectorAll(".scroll > table:not(.sortable)")) {
    table.parentElement.after(copies(table));
  }
  Picture.all();
  // Show all digits of a number or all letters of a name under the mouse pointer.
  document.addEventListener("pointerover", ({ target }) => {
    const cell = target.closest?.("td[data-v], th[data-v]");
    if (cell && !cell.title) cell.title = cell.dataset.v;
  });
}

start();
