// Frame of the explorer: widths of its views, keyboard shortcuts, selectable table rows, and the scroll
// position and focus of a table that the kernel writes again.

// Views by explorer; a page may have several of both.
const shown = new Map();

function render({ model, el }) {
  const views = shown.get(model.get("key")) ?? [];
  shown.set(model.get("key"), views);
  const root = () => el.closest(".sparsity-explorer");
  const more = (event) => event.shiftKey || event.metaKey || event.ctrlKey;

  function row(event) {
    const found = event.target.closest?.("[data-row]");
    if (!found || (event.type === "keydown" && !["Enter", " "].includes(event.key))) return;
    if (event.type === "keydown") event.preventDefault();
    model.send({ row: Number(found.dataset.row), more: more(event) });
  }

  // All rows share one tab stop, initially the current row. Arrow keys move between rows.
  function stop(rows, at) {
    for (const one of rows) one.tabIndex = one === at ? 0 : -1;
  }
  function walk(event) {
    const found = event.target.closest?.("[data-row]");
    const rows = found ? [...found.parentElement.querySelectorAll("[data-row]")] : [];
    const at = rows.indexOf(found);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (at < 0 || !rows[to]) return;
    event.preventDefault();
    stop(rows, rows[to]);
    rows[to].focus();
  }

  function steps(event) {
    if (!(event.ctrlKey || event.metaKey) || event.target.matches("input[type=text]")) return;
    const key = event.key.toLowerCase();
    const kind = key === "y" || (key === "z" && event.shiftKey) ? "redo" : key === "z" ? "undo" : null;
    if (kind === null) return;
    event.preventDefault();
    event.stopPropagation();
    model.send({ [kind]: true });
  }

  // Shortcuts of the notebook use plain keys, such as arrows, in capture and bubble listeners. Keep these
  // keys from the notebook, but let Ctrl+S pass.
  const plain = (event) =>
    (!event.ctrlKey && !event.metaKey) || ["z", "y"].includes(event.key.toLowerCase());
  function guard(event) {
    if (watched?.contains(event.target)) {
      event.target.toggleAttribute("data-lm-suppress-shortcuts", plain(event));
    }
  }
  function key(event) {
    steps(event);
    if (plain(event)) event.stopPropagation();
    row(event);
    walk(event);
  }

  function live() {
    root()?.classList.toggle("is-live", model.get("live"));
    root()?.classList.toggle(`is-live-${model.get("key")}`, model.get("live"));
  }

  // Keep the scroll position and the keyboard focus of a table that is written again.
  let [top, left, held] = [0, 0, null];
  function scrolled(event) {
    if (event.target.matches?.(".sx-tall")) ({ scrollTop: top, scrollLeft: left } = event.target);
  }
  function focused(event) {
    held = event.target.closest?.("[data-row]")?.dataset.row ?? null;
  }
  const renewed = new MutationObserver(() => {
    const table = watched?.querySelector(".sx-tall");
    if (!table) return;
    // If nothing has the focus, the focused row was replaced.
    const again = held !== null && document.activeElement === document.body;
    const rows = [...table.querySelectorAll("[data-row]")];
    const row = again ? rows.find((r) => r.dataset.row === held) : null;
    if (row) {
      stop(rows, row);
      row.focus({ preventScroll: true });
    }
    if (rows.length && !rows.some((r) => r.tabIndex === 0)) rows[0].tabIndex = 0;
    table.scrollTo({ top, left });
  });
  function settle(tries = 60) {
    const below = watched?.querySelector(".sx-below");
    const state = watched?.querySelector(".sx-state .widget-html-content");
    if (!below || !state) return void (tries && watched && setTimeout(settle, 50, tries - 1));
    // Screen readers announce a change of the shown state.
    state.setAttribute("role", "status");
    renewed.observe(below.firstElementChild ?? below, { childList: true, subtree: true });
  }

  // The first view sets the width of the explorer; the others report their own.
  const own = { width: 0 };
  function publish() {
    if (!views.length) return;
    model.set("width", views[0].width);
    model.set("widths", views.slice(1).map((one) => one.width));
    model.save_changes();
  }

  let watched = null;
  const watch = new ResizeObserver(([entry]) => {
    const now = Math.floor(entry.contentRect.width);
    if (watched === null && root()) {
      watched = root();
      watched.addEventListener("keydown", key);
      watched.addEventListener("click", row);
      watched.addEventListener("scroll", scrolled, true);
      watched.addEventListener("focusin", focused);
      settle();
      live();
    }
    // Ignore changes as small as the width of a scroll bar.
    if (now === 0 || Math.abs(now - own.width) < 18) return;
    if (own.width === 0) views.push(own);
    own.width = Math.max(320, now);
    watched.dataset.width = own.width;
    publish();
  });
  watch.observe(el);
  window.addEventListener("keydown", guard, true);
  // Copy a text from the kernel; without clipboard access, show it for manual copying.
  async function copy({ copy: text }) {
    if (text === undefined || views[0] !== own) return;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const place = document.createElement("textarea");
      place.className = "sx-copied";
      place.readOnly = true;
      place.value = text;
      watched.querySelector(".sx-copied")?.remove();
      watched.querySelector(".sx-tools").after(place);
      place.focus();
      place.select();
    }
  }
  model.on("msg:custom", copy);
  model.on("change:live", live);
  return () => {
    watch.disconnect();
    renewed.disconnect();
    window.removeEventListener("keydown", guard, true);
    model.off("msg:custom", copy);
    model.off("change:live", live);
    watched?.removeEventListener("keydown", key);
    watched?.removeEventListener("click", row);
    watched?.removeEventListener("scroll", scrolled, true);
    watched?.removeEventListener("focusin", focused);
    if (views.includes(own)) {
      views.splice(views.indexOf(own), 1);
      publish();
    }
  };
}

export default { render };
