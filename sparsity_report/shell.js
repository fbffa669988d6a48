// What surrounds the explorer: how wide it is, keys that stay inside, rows that can be clicked.
function render({ model, el }) {
  const root = () => el.closest(".sparsity-explorer");

  function row(event) {
    const found = event.target.closest?.("[data-row]");
    if (!found || (event.type === "keydown" && !["Enter", " "].includes(event.key))) return;
    if (event.type === "keydown") event.preventDefault();
    model.send({ row: Number(found.dataset.row), more: event.shiftKey || event.metaKey || event.ctrlKey });
  }

  function key(event) {
    // The notebook's own shortcuts take plain keys, arrows among them; Ctrl+S should reach it.
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
    row(event);
  }

  function live() {
    root()?.classList.toggle("is-live", model.get("live"));
    root()?.classList.toggle(`is-live-${model.get("key")}`, model.get("live"));
  }

  let width = 0;
  let watched = null;
  const watch = new ResizeObserver(([entry]) => {
    const now = Math.floor(entry.contentRect.width);
    if (watched === null && root()) {
      watched = root();
      watched.addEventListener("keydown", key);
      watched.addEventListener("click", row);
      live();
    }
    // A scroll bar that comes and goes is no reason to draw anew.
    if (now === 0 || Math.abs(now - width) < 18) return;
    width = now;
    model.set("width", width);
    model.save_changes();
  });
  watch.observe(el);
  model.on("change:live", live);
  return () => {
    watch.disconnect();
    model.off("change:live", live);
    watched?.removeEventListener("keydown", key);
    watched?.removeEventListener("click", row);
  };
}

export default { render };
