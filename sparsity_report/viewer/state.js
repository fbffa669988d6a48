// State of the controls: one value, changed in one place, with undo.
/** @import { State, Traits } from "./types" */
import { AT_LEVEL } from "./figures.js";

// Milliseconds without a change after which a state is a step, and most steps.
const [REST, STEPS] = [300, 200];

export class Store {
  /** @param {import("./figures.js").Figures} figures @param {Traits} start */
  constructor(figures, start) {
    this.figures = figures;
    /** @type {State} */
    this.state = this.settled({ variant: "", policy: "", sparsity: 0, layout: "csr", metric: "",
      against: "", modules: "prunable", grouping: "group", sort: "", curve: "bytes", search: "",
      detail: -1, selection: [], panel: "layer", ...this.internal(start) });
    if (this.state.detail < 0) this.state = { ...this.state, detail: figures.extreme(this.state) };
    /** The first state, and the states that undo goes back to. @type {State} */
    this.first = this.state;
    /** @type {State[]} */
    this.steps = [this.state];
    this.at = 0;
    this.onChange = [];
    this.onRest = [];
  }

  /** Modules are positions inside, names outside. @param {Partial<Traits>} traits */
  internal(traits) {
    const { positions } = this.figures;
    /** @type {any} */
    const state = { ...traits };
    if ("selection" in state) {
      state.selection = state.selection.map((name) => positions.get(name)).filter((i) =>
        i !== undefined
      );
    }
    if ("detail" in state) state.detail = positions.get(state.detail) ?? -1;
    return state;
  }

  /** @returns {Traits} */
  traits(state = this.state) {
    const { names } = this.figures.modules;
    const shared = { ...state };
    delete shared.panel;
    return { ...shared, selection: state.selection.map((i) => names[i]),
      detail: names[state.detail] ?? null };
  }

  /** Change some values; what depends on them follows. @param {Partial<State>} changes */
  set(changes, { rest = true } = {}) {
    const [before, { figures }] = [this.state, this];
    const next = { ...before, ...changes };
    if (changes.variant !== undefined && changes.variant !== AT_LEVEL) {
      const { layout, sparsity } = figures.variant(changes.variant);
      next.layout = changes.layout ?? (layout === "csr" ? "csr" : "dense");
      const policy = figures.policyOf(next);
      if (policy && sparsity !== null) {
        next.sparsity = policy.levels[figures.place(policy, sparsity)];
      }
    } else if (changes.sparsity !== undefined || changes.policy !== undefined) {
      const policy = figures.policyOf(next);
      if (policy) {
        next.sparsity = policy.levels[figures.place(policy, next.sparsity)];
        next.variant = AT_LEVEL;
      }
    }
    if (changes.selection?.length && !changes.selection.includes(next.detail)) {
      next.detail = changes.selection.at(-1);
    }
    // A change of another control begins a new step.
    const control = Object.keys(changes).join();
    if (control !== this.control) this.note();
    this.control = control;
    this.state = this.settled(next);
    for (const act of this.onChange) act(this.state, before);
    clearTimeout(this.timer);
    if (rest) this.timer = setTimeout(() => this.rest(), REST);
  }

  // Select layers; with `more` in addition, or out of the selection. The same one again clears it.
  select(members, more = false, keep = false) {
    const { selection } = this.state;
    const known = new Set(selection);
    let next = members;
    if (more) {
      const others = selection.filter((i) => !members.includes(i));
      next = members.every((i) => known.has(i)) ? others : [...others, ...members];
    } else if (!keep && selection.length === members.length && members.every((i) => known.has(i))) {
      next = [];
    }
    this.set({ selection: next, ...(members.length ? { detail: members.at(-1) } : {}) });
  }

  settled(state) {
    const { figures } = this;
    if (figures.isPair) return state;
    const policy = figures.policyOf(state);
    if (figures.isLevel(state) && !policy) return { ...state, variant: figures.variants[0].name };
    return state;
  }

  // Append the state to the steps, if it is another one.
  note() {
    if (this.state === this.steps[this.at]) return;
    /** @type {State[]} */
    this.steps = [...this.steps.slice(0, this.at + 1), this.state].slice(-STEPS);
    this.at = this.steps.length - 1;
  }

  rest() {
    this.note();
    for (const act of this.onRest) act(this.state);
  }

  go(by) {
    this.note();
    const at = this.at + by;
    if (!this.steps[at]) return;
    this.at = at;
    this.restore(this.steps[at]);
  }

  reset() {
    this.restore(this.first);
  }

  restore(state) {
    const before = this.state;
    this.state = state;
    for (const act of this.onChange) act(state, before);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.rest(), REST);
  }
}
