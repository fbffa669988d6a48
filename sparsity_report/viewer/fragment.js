// Opens the viewers of a page, whose payload and script are attributes of their elements.
import { fail, inflate, stored } from "./data.js";

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// A notebook that is open has time to show the widget instead.
const patience = document.querySelector(".lm-Widget") ? 3000 : 0;

// Return the state in which an explorer was last seen: in this window, or in its notebook.
function lastSeen(key) {
  /** @type {HTMLElement | null} */
  const saved = document.querySelector(`.sv-state-${key}`);
  return stored(`sparsity-viewer ${key}`) ?? JSON.parse(saved?.dataset.state ?? "null");
}

async function run(root, { payload, script, key }) {
  const seen = lastSeen(key);
  if (root.viewer) return seen && root.viewer.recall(seen);
  const source = new TextDecoder().decode(await inflate(bytesOf(script))).split("\0");
  if (!globalThis.sparsityViewer) {
    for (const [tag, textContent] of [["style", source[0]], ["script", source[1]]]) {
      document.head.append(Object.assign(document.createElement(tag), { textContent }));
    }
  }
  return globalThis.sparsityViewer.mount(root, bytesOf(payload), { source, key, seen });
}

/** @type {NodeListOf<HTMLElement>} */
const roots = document.querySelectorAll(".sparsity-viewer[data-payload]");
for (const root of roots) {
  /** @type {any} */
  const data = { ...root.dataset };
  root.removeAttribute("data-payload");
  root.removeAttribute("data-script");
  const open = () => run(root, data).catch((error) => fail(root, error));
  // The widget may go at any time, with its kernel: then the page becomes visible.
  const seen = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && open());
  if (patience) setTimeout(() => seen.observe(root), patience);
  else open();
}
