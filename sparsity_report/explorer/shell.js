// What surrounds the explorer: how wide it is, keys that stay inside, rows that can be clicked.
function render({ model, el }) {
  const root = () => el.closest(".sparsity-explorer");

  function row(event) {
    const found = event.target.closest?.("[data-row]");
    if (!found || (event.type === "keydown" && !["Enter", " "].includes(event.key))) return;
    if (event.type === "keydown") event.preventDefault();
    model.send({ row: Number(found.dataset.row), more: event.shiftKey || event.metaKey || event.ctrlKey });
  }

  // The notebook's shortcuts take plain keys, arrows among them, some of its listeners on the way
  // down to the explorer and some on the way up; Ctrl+S should reach it.
  const plain = (event) => !event.ctrlKey && !event.metaKey;
  function guard(event) {
    if (watched?.contains(event.target)) {
      event.target.toggleAttribute("data-lm-suppress-shortcuts", plain(event));
    }
  }
  function key(event) {
    if (plain(event)) event.stopPropagation();
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
    watched.dataset.width = Math.max(320, width);
    model.set("width", width);
    model.save_changes();
  });
  watch.observe(el);
  window.addEventListener("keydown", guard, true);
  model.on("change:live", live);
  return () => {
    watch.disconnect();
    window.removeEventListener("keydown", guard, true);
    model.off("change:live", live);
    watched?.removeEventListener("keydown", key);
    watched?.removeEventListener("click", row);
  };
}

export default { render };
