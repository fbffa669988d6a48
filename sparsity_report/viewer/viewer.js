// The viewer: one screen over a payload; a kernel is asked only for what the payload cannot hold.
import { Controls } from "./controls.js";
import { fail, open, stored } from "./data.js";
import { make, setAttributes } from "./elements.js";
import { AT_LEVEL, Figures, SIDES } from "./figures.js";
import { holdFocus, listenToKeys } from "./keyboard.js";
import { HeatMap } from "./map.js";
import { Panel } from "./panel.js";
import { count } from "./parts.js";
import { Store } from "./state.js";
import { Table } from "./table.js";
import { Tools } from "./tools.js";

// True for a value of a trait that its control offers.
function isOffered({ data: { metrics, start }, figures, panel, root }, name, value) {
  if (name === "panel") return panel.tabs.some(({ dataset }) => dataset.panel === value);
  if (name === "detail") return figures.positions.has(value);
  const first = start[name];
  if (first === undefined || value?.constructor !== first.constructor) return false;
  if (name === "sort") {
    return ["", "module", ...metrics.map(({ key }) => key)].includes(value.replace(/^-|_b$/g, ""));
  }
  const side = SIDES.find((keys) => keys.includes(name));
  const kind = side && SIDES[0][side.indexOf(name)];
  if (kind === "sparsity" || (kind === "variant" && value === AT_LEVEL)) return true;
  const control = side?.[0] ?? (name === "modules" ? "scope" : name);
  const menu = root.querySelector(`select.sv-${control}`);
  const wanted = kind ? `${kind} ${value}` : value;
  return !menu || [...menu.options].some((option) => option.value === wanted && !option.disabled);
}

class Viewer {
  constructor(root, data, { start, kernel, key, seen }) {
    this.root = root;
    this.data = data;
    this.kernel = kernel;
    this.key = key;
    this.figures = new Figures(data, Boolean(kernel));
    this.text = this.figures.text;
    this.store = new Store(this.figures, { ...data.start, ...start }, historyOf(key));
    /** Sizes and values with which each part was last drawn. */
    this.seen = new Map();
    this.build();
    this.store.onChange.push((state, before) => {
      this.tools.forget(state, before);
      this.redraw();
    });
    this.store.onRest.push((state) => {
      kernel?.share(this.store.traits(state));
      this.keep();
      count(this);
      root.dispatchEvent(new Event("viewer-change", { bubbles: true }));
    });
    this.ended = new AbortController();
    listenToKeys(this, this.ended.signal);
    addEventListener("pagehide", () => this.store.rest(), { signal: this.ended.signal });
    this.holdFocus = holdFocus(root, this.ended.signal);
    this.sized = new ResizeObserver(() => this.draw());
    this.sized.observe(root);
    if (seen) this.recall(seen);
    this.store.isNew = true;
    this.store.note();
    this.keep();
    this.drawParts(this.store.state);
    count(this);
  }

  // State with the names of modules, as a kernel and an address know it.
  get state() {
    return this.store.traits();
  }

  set(traits) {
    this.store.set(this.store.internal(traits));
  }

  // State that a page keeps, with its panel.
  get kept() {
    return { ...this.state, panel: this.store.state.panel };
  }

  // Keep what was last seen of an explorer, for its page without a kernel and after a reload.
  keep() {
    if (this.key) stored(`sparsity-viewer ${this.key}`, this.kept);
  }

  // Show traits that were kept, if they are values of the controls.
  recall(traits) {
    const { store } = this;
    const known = Object.entries(traits).filter((trait) => isOffered(this, ...trait));
    if (!known.length) return;
    store.show(store.settled({ ...store.state, ...store.internal(Object.fromEntries(known)) }));
  }

  build() {
    const { root, data, figures, store, text } = this;
    const [left, right] = ["left", "right"].map((side) => make("div", { className: `sv-${side}` }));
    this.controls = new Controls(this);
    this.tools = new Tools(this);
    root.replaceChildren(this.controls.bar, this.controls.said,
      make("div", { className: "sv-body" }, left, right), this.tools.selection);
    root.classList.toggle("sv-pair", figures.isPair);
    setAttributes(root, { role: "group", "aria-label": text.say("viewer", { title: data.title }) });
    const redraw = () => this.redraw();
    this.map = new HeatMap(left, figures, store, redraw);
    this.panel = new Panel(right, figures, store);
    this.table = new Table(root, figures, store, redraw);
    root.append(this.tools.box, this.tools.notice);
  }

  // Draw in the next animation frame, once for all changes before it.
  redraw() {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    try {
      this.drawParts(this.store.state);
      this.holdFocus();
    } catch (error) {
      fail(this.root, error);
    }
  }

  // Draw the parts in which something changed; all sizes are read before anything is written.
  drawParts(state) {
    const { controls, map, panel, table } = this;
    const parts = [controls, map, panel, table].filter((part) => {
      const shown = Object.keys(state).filter((name) => !part.unused.includes(name));
      const [seen, now] = [this.seen.get(part), [...part.measure(),
        ...shown.map((name) => state[name])]];
      this.seen.set(part, now);
      return !seen || now.some((value, k) => value !== seen[k]);
    });
    for (const part of parts) part.update(state);
    this.tools.update(state);
  }

  /**
   * Ask the kernel, say so, and say its answer, unless a later question was asked.
   * @param {{ type: string, level?: object }} message
   * @returns {Promise<{ type: "said" | "error", text?: string, data?: DataView }>}
   */
  async ask(message) {
    const { kernel, root, text } = this;
    root.asked = message;
    const tell = (words, about) => {
      if (root.asked === message) root.viewer.tools.tell(words, about, "kernel");
    };
    this.store.rest();
    tell(text.say("waiting"), []);
    const answer = await kernel.ask(message);
    tell(answer.text ?? "");
    return answer;
  }

  close() {
    this.ended.abort();
    this.sized.disconnect();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.store.timer);
  }
}

// Return what views of an explorer share, such as its steps, which outlive a view and a payload.
export function historyOf(key) {
  globalThis.sparsityHistories ??= {};
  return key ? (globalThis.sparsityHistories[key] ??= {}) : {};
}

/**
 * Show a payload in an element; a damaged one leaves a sentence. The first state is that of the
 * payload, changed by `start` of a kernel or by the valid values of `seen`.
 */
export async function mount(root, payload,
  { start = {}, kernel = null, source = null, key = "", seen = null } = {})
{
  root.still ??= [...root.childNodes];
  try {
    const data = { ...await open(payload), payload, source };
    root.viewer?.close();
    root.viewer = new Viewer(root, data, { start, kernel, key, seen });
    root.classList.add("sv-ready");
    root.dispatchEvent(new Event("viewer-change", { bubbles: true }));
    return root.viewer;
  } catch (error) {
    return fail(root, error);
  }
}
