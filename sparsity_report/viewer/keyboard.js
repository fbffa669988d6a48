// Keys of the viewer: undo and redo, and protection from the shortcuts of a notebook.

const isPlain = ({ ctrlKey, metaKey, key }) =>
  (!ctrlKey && !metaKey) || ["z", "y"].includes(key.toLowerCase());

export function listenToKeys(root, store, signal) {
  // Keep plain keys from the shortcuts of a notebook, which look at the element with the focus.
  window.addEventListener("keydown", (event) => {
    const [target] = event.composedPath();
    if (!event.composedPath().includes(root) || !(target instanceof Element)) return;
    target.toggleAttribute("data-lm-suppress-shortcuts", isPlain(event));
  }, { capture: true, signal });
  root.addEventListener("keydown", (event) => {
    const isField = event.target.matches("input:not([type=range]), textarea");
    const name = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && !isField && (name === "z" || name === "y")) {
      event.preventDefault();
      store.go(name === "y" || event.shiftKey ? 1 : -1);
    }
    if (isPlain(event)) event.stopPropagation();
  }, { signal });
}
