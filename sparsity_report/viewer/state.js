// State of the controls: one value, changed in one place, with undo.
/** @import { State, Traits } from "./types" */
import { AT_LEVEL, SIDES } from "./figures.js";

// Milliseconds without a change after which a state is a step, and most steps.
const [REST, STEPS] = [300, 200];

// Return whether two states show the same, in any panel.
const isSame = (one, other) =>
  Object.keys(one).every((key) => key === "panel" || String(one[key]) === String(other?.[key]));

export class Store {
  /**
   * @param {import("./figures.js").Figures} figures
   * @param {Traits} start
   * @param {{ first?: State, steps?: State[], at?: number }} history Steps so far, which all views
   * of an explorer share; an added variant leaves the positions of modules as they are.
   */
  constructor(figures, start, history = {}) {
    this.figures = figures;
    /** @type {State} */
    this.state = this.settled({ variant: "", policy: "", sparsity: 0, layout: "csr", metric: "",
      against: "", against_policy: "", against_sparsity: 0, modules: "prunable", colors: "auto",
      grouping: "group", sort: "", search: "", detail: -1, selection: [], panel: "layer",
      ...this.internal(start) });
    if (this.state.detail < 0) this.state = { ...this.state, detail: figures.extreme(this.state) };
    this.history = history;
    history.first ??= this.state;
    // The shown state may be no step yet.
    this.isNew = !history.steps;
    this.note();
    this.onChange = [];
    this.onRest = [];
  }

  /** Modules are positions inside, names outside. @param {Partial<Traits>} traits */
  internal(traits) {
    const { positions } = this.figures;
    /** @type {any} */
    const state = { ...traits };
    if ("selection" in state) {
      state.selection = state.selection.flatMap((name) => positions.get(name) ?? []);
    }
    if ("detail" in state) state.detail = positions.get(state.detail) ?? -1;
    return state;
  }

  /** @returns {Traits} */
  traits(state = this.state) {
    const { names } = this.figures.modules;
    const shared = { ...state, selection: state.selection.map((i) => names[i]),
      detail: names[state.detail] ?? null };
    delete shared.panel;
    return shared;
  }

  /** Change some values; what depends on them follows. @param {Partial<State>} changes */
  set(changes) {
    const [before, { figures }] = [this.state, this];
    const next = { ...before, ...changes };
    for (const [shown, policy, share] of SIDES) {
      const name = changes[shown];
      if (name !== undefined && name !== AT_LEVEL) {
        const { layout, sparsity } = figures.variant(name);
        if (shown === "variant") {
          next.layout = changes.layout ?? (layout === "csr" ? "csr" : "dense");
        }
        next[share] = sparsity ?? next[share];
      } else if ((changes[policy] ?? changes[share]) !== undefined) {
        if (figures.policyOf({ policy: next[policy] })) next[shown] = AT_LEVEL;
      }
    }
    if (changes.selection?.length && !changes.selection.includes(next.detail)) {
      next.detail = changes.selection.at(-1);
    }
    this.show(this.settled(next), Object.keys(changes).join());
  }

  // Swap sides A and B.
  swap() {
    const { state, state: { layout } } = this;
    const [a, b] = SIDES;
    const swapped = [...a, ...b].map((key, k) => [key, state[[...b, ...a][k]]]);
    this.set({ ...Object.fromEntries(swapped), layout });
  }

  // Select layers; with `more` in addition, or out of the selection. The same one again clears it.
  select(members, more = false, keep = false) {
    const { selection } = this.state;
    const known = new Set(selection);
    const isKnown = members.every((i) => known.has(i));
    let next = isKnown && !keep && (more || selection.length === members.length) ? [] : members;
    if (more) next = [...selection.filter((i) => !members.includes(i)), ...next];
    this.set({ selection: next, ...(members.length ? { detail: members.at(-1) } : {}) });
  }

  settled(state) {
    const { figures } = this;
    if (figures.isPair) return state;
    const settled = { ...state };
    for (const [shown, policy, share] of SIDES) {
      const of = figures.policyOf({ policy: state[policy] });
      if (of) settled[share] = of.levels[figures.place(of, state[share])];
      else if (state[shown] === AT_LEVEL) settled[shown] = figures.variants[0].name;
    }
    return settled;
  }

  // Append the state to the steps, if it is another one.
  note() {
    const { history, isUnnoted, state } = this;
    this.isNew = false;
    if (!isUnnoted) return;
    history.steps = [...(history.steps ?? []).slice(0, history.at + 1), state].slice(-STEPS);
    history.at = history.steps.length - 1;
  }

  get isUnnoted() {
    const { steps, at } = this.history;
    return this.isNew && !isSame(this.state, steps?.[at]);
  }

  // Return whether there is a step to go to: back with -1, forth with 1.
  hasStep(by) {
    const { steps, at } = this.history;
    return this.isUnnoted ? by < 0 : steps[at + by] !== undefined;
  }

  rest() {
    this.note();
    for (const act of this.onRest) act(this.state);
  }

  go(by) {
    if (!this.hasStep(by)) return;
    this.note();
    const { history } = this;
    history.at += by;
    this.show({ ...history.steps[history.at], panel: this.state.panel });
    this.isNew = false;
  }

  // Show values that kernel or address have changed, with all that follows from them.
  receive(traits) {
    this.show({ ...this.state, ...this.internal(traits) }, `its ${Object.keys(traits).join()}`);
  }

  // Show a state; a change of another control begins a new step.
  show(state, control = "") {
    if (!control || control !== this.control) this.note();
    this.control = control;
    const before = this.state;
    this.state = state;
    this.isNew = true;
    for (const act of this.onChange) act(state, before);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.rest(), REST);
  }
}
