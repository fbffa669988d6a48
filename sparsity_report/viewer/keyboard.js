// Keys of the viewer: undo, copy, Escape, and protection from the shortcuts of a notebook.
import { isTextSelected } from "./elements.js";

// Keys that the viewer keeps for itself: plain ones, and these with Ctrl or Cmd.
const isOwn = ({ ctrlKey, metaKey, key }) =>
  (!ctrlKey && !metaKey) || ["a", "c", "y", "z"].includes(key.toLowerCase());
const isField = (target) => target.matches("input:not([type=range]), textarea");

// Return a function that takes the focus back when the element that has it goes or is disabled.
export function holdFocus(root, signal) {
  let isInside = false;
  root.tabIndex = -1;
  // An element that goes loses the focus too, to nothing.
  const follow = (target) => target && (isInside = root.contains(target));
  root.addEventListener("focusin", () => (isInside = true), { signal });
  root.addEventListener("focusout", (event) => follow(event.relatedTarget), { signal });
  window.addEventListener("pointerdown", (event) => follow(event.target), { capture: true,
    signal });
  return () => {
    const { activeElement } = root.getRootNode();
    const isLost = !root.contains(activeElement) || activeElement.disabled;
    if (isInside && isLost) root.focus({ preventScroll: true });
  };
}

export function listenToKeys({ root, store, table, tools }, signal) {
  // Keep own keys from the shortcuts of a notebook, which look at the element with the focus.
  window.addEventListener("keydown", (event) => {
    const [target] = event.composedPath();
    if (!event.composedPath().includes(root) || !(target instanceof Element)) return;
    target.toggleAttribute("data-lm-suppress-shortcuts", isOwn(event));
  }, { capture: true, signal });
  root.addEventListener("keydown", (event) => {
    const { target } = event;
    const name = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && !isField(target) && (name === "z" || name === "y")) {
      event.preventDefault();
      store.go(name === "y" || event.shiftKey ? 1 : -1);
    } else if (name === "arrowdown" && target.matches(".sv-search")) {
      event.preventDefault();
      table.move(0);
    } else if (name === "escape" && !event.defaultPrevented && escape(target)) {
      event.preventDefault();
    }
    if (isOwn(event)) event.stopPropagation();
  }, { signal });
  root.addEventListener("copy", (event) => {
    if (isField(event.target) || isTextSelected(root)) return;
    const [text, notice] = tools.rows("\t");
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
    tools.tell(notice);
  }, { signal });

  // Undo the first of these: what was typed, the selection, the search.
  function escape(target) {
    const { selection, search } = store.state;
    tools.tell("");
    if (isField(target) && target.value !== target.defaultValue) {
      target.value = target.defaultValue;
      target.dispatchEvent(new Event("input"));
    } else if (selection.length) store.set({ selection: [] });
    else if (search) store.set({ search: "" });
    else return false;
    return true;
  }
}
