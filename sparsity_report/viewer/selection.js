// The line above the table: figures of the selected layers, and buttons for them.
import { make, show } from "./elements.js";
import { button } from "./tools.js";

export class Selection {
  // Values of the state that the line does not show.
  unused = ["grouping", "colors", "sort", "search"];

  constructor(viewer) {
    const { figures, figures: { data, isPair, text }, kernel, store } = viewer;
    this.figures = figures;
    this.sum = make("span", { className: "sv-sum" });
    const lack = !kernel ? "needs_kernel" : data.hasWeights ? "" : "needs_weights";
    this.add = button(text, "add", () => viewer.ask({ type: "add" }), lack && text.say(lack));
    this.clear = button(text, "clear", () => {
      store.set({ selection: [] });
      viewer.table.box.focus({ preventScroll: true });
    });
    this.box = make("div", { className: "sv-selection" }, this.sum, ...(isPair ? [] : [this.add]),
      this.clear);
  }

  measure() {
    return [];
  }

  update(state) {
    const { figures, figures: { isPair, text } } = this;
    const { selection, selection: { length } } = state;
    this.clear.hidden = !length;
    this.add.hidden = !figures.isLevel(state);
    const hint = figures.compares(state) ? "" : "select_hint";
    const key = length ? (isPair ? "selected" : "selected_sums") : hint;
    const sums = length && !isPair ? figures.written(state, selection) : {};
    show(this.sum, text.say(key, { n: text.count(length), ...sums }));
  }
}
