function start() {
  for (const table of document.querySelectorAll("table.sortable")) new Table(table);
  const scheme = document.getElementById("scheme");
  new Address(scheme && chooseScheme(scheme));
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
