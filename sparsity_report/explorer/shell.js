// What surrounds the explorer: how wide its views are, keys that stay inside, rows that can be
// clicked and walked, and what stays as it was when the kernel writes a table anew.
// Views of each explorer, of which one page may have several.
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

  // One stop of the tab key for all rows, at first the row looked at; arrows go from one to the next.
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

  // The notebook's shortcuts take plain keys, arrows among them, some of its listeners on the way
  // down to the explorer and some on the way up; Ctrl+S should reach it.
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

  // A table that is written anew stays where it was scrolled to, and keeps the keys.
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
    // Nothing focused: what held the keys has been replaced.
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
    // What is shown is said when it changes.
    state.setAttribute("role", "status");
    renewed.observe(below.firstElementChild ?? below, { childList: true, subtree: true });
  }

  // The first view says how wide the explorer is, further ones how wide they are.
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
    // A scroll bar that comes and goes is no reason to draw anew.
    if (now === 0 || Math.abs(now - own.width) < 18) return;
    if (own.width === 0) views.push(own);
    own.width = Math.max(320, now);
    watched.dataset.width = own.width;
    publish();
  });
  watch.observe(el);
  window.addEventListener("keydown", guard, true);
  // The kernel has the text; where the clipboard is closed it is offered to be copied by hand.
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
