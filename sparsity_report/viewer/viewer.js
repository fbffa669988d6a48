// The viewer: one screen over a payload; a kernel is asked only for what the payload cannot hold.
import { Controls } from "./controls.js";
import { code } from "./copied_code.js";
import { open } from "./data.js";
import { sharedZeros } from "./details.js";
import { make } from "./elements.js";
import { Figures } from "./figures.js";
import { listenToKeys } from "./keyboard.js";
import { HeatMap } from "./map.js";
import { Panel } from "./panel.js";
import { Store } from "./state.js";
import { Table } from "./table.js";
import { button, Tools } from "./tools.js";

const DAMAGED = "The data of this viewer are damaged. Run the cell again, or write the page again.";

class Viewer {
  constructor(root, data, start, kernel) {
    this.root = root;
    this.data = data;
    this.kernel = kernel;
    this.figures = new Figures(data);
    this.text = this.figures.text;
    this.store = new Store(this.figures, { ...data.start, ...start });
    this.build();
    this.store.onChange.push((state, before) => this.update(state, before));
    this.store.onRest.push((state) => {
      kernel?.share(this.store.traits(state));
      root.dispatchEvent(new CustomEvent("viewer-change", { bubbles: true, detail: state }));
    });
    this.ended = new AbortController();
    listenToKeys(root, this.store, this.ended.signal);
    this.sized = new ResizeObserver(() => this.update(this.store.state));
    this.sized.observe(root);
    this.update(this.store.state);
  }

  // State with the names of modules, as a kernel and an address know it.
  get state() {
    return this.store.traits();
  }

  set(traits, options = {}) {
    this.store.set(this.store.internal(traits), options);
  }

  code(state) {
    return code(this.figures, this.store, state);
  }

  build() {
    const { root, data, figures, store, text } = this;
    const [left, right] = ["left", "right"].map((side) => make("div", { className: `sv-${side}` }));
    this.controls = new Controls(figures, store, (content) => this.tools.tell(content));
    const body = make("div", { className: "sv-body" }, left, right);
    const selection = this.buildSelection();
    root.replaceChildren(this.controls.bar, this.controls.said, body, selection);
    root.classList.toggle("sv-pair", figures.isPair);
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", text.say("viewer", { title: data.title }));
    this.map = new HeatMap(left, figures, store);
    this.panel = new Panel(right, figures, store);
    this.table = new Table(root, figures, store);
    this.tools = new Tools(this);
    root.append(this.tools.box, this.tools.notice);
  }

  // Controls for a selection, which exist once and are shown as needed.
  buildSelection() {
    const { store, kernel, data, figures, text } = this;
    this.sum = make("span", { className: "sv-sum" });
    const reason = figures.isPair || data.hasWeights ? "" : text.say("needs_weights");
    this.add = button(text, "add", () => this.ask({ type: "add" }), reason);
    this.compare = button(text, "compare", () => store.set({ metric: "difference" }));
    this.clear = button(text, "clear", () => store.set({ selection: [] }));
    const ofStudy = figures.isPair ? [] : [this.compare, kernel && this.add];
    return make("div", { className: "sv-selection" }, this.sum, ...ofStudy, this.clear);
  }

  update(state, before = null) {
    if (before && before.modules !== state.modules) this.map.zoomed = null;
    for (const part of [this.controls, this.map, this.panel, this.table]) part.update(state);
    this.updateSelection(state);
    this.tools.update(state);
  }

  updateSelection(state) {
    const { figures, text } = this;
    const { length } = state.selection;
    const isDifference = state.metric === "difference";
    const hasDifference = figures.data.metrics.some(({ key }) => key === "difference");
    this.clear.hidden = !length;
    this.add.hidden = !figures.isLevel(state);
    this.compare.hidden = !length || isDifference || !hasDifference;
    const parts = [];
    if (length && figures.isPair) parts.push(text.say("selected", { n: text.count(length) }));
    else if (length) {
      const sums = figures.sums(state, state.selection);
      parts.push(
        text.say("selected_sums", { n: text.count(length), weights: text.scaled(sums.prunable),
          share: text.percent(sums.share), bytes: text.scaled(sums.bytes, "B"),
          ratio: text.times(sums.ratio), layout: text.say(`as_${state.layout}`) }),
      );
      if (sums.slack) parts.push(text.say("selected_slack", { slack: text.count(sums.slack) }));
    } else if (!isDifference) parts.push(text.say("select_hint"));
    const members = length ? state.selection : figures.scope(state.modules, state);
    if (isDifference) parts.push(sharedZeros(figures, state, members));
    this.sum.textContent = parts.join(" ");
  }

  ask(message) {
    this.store.rest();
    this.tools.tell(this.text.say("waiting"));
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.tools.tell(this.text.say("no_answer")), 3000);
    this.kernel.send(message);
  }

  answer({ text }) {
    clearTimeout(this.waiting);
    this.tools.tell(text);
  }

  close() {
    this.ended.abort();
    this.sized.disconnect();
    clearTimeout(this.store.timer);
    clearTimeout(this.waiting);
  }
}

// Show a payload in an element; a damaged one leaves a sentence.
export async function mount(root, payload, { start = {}, kernel = null } = {}) {
  try {
    const data = await open(payload);
    root.viewer?.close();
    root.viewer = new Viewer(root, data, start, kernel);
    root.classList.add("sv-ready");
    const detail = root.viewer.store.state;
    root.dispatchEvent(new CustomEvent("viewer-change", { bubbles: true, detail }));
    return root.viewer;
  } catch (error) {
    root.replaceChildren(
      make("p", { className: "sv-sentence", textContent: root.dataset.damaged ?? DAMAGED,
        title: String(error) }),
    );
    return null;
  }
}
