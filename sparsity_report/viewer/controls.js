// The bar above the map: what is in view, the slider, the sentence and the budget.
import { example, solve } from "./budget.js";
import { make, menu, show } from "./elements.js";
import { AT_LEVEL, LAYOUTS, SIDES } from "./figures.js";
import { clip, known } from "./numbers.js";
import { button } from "./tools.js";

const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

// Return the usual distance of the levels of a policy, between which levels were added.
function stepOf({ levels }) {
  const steps = levels.slice(1).map((level, k) => level - levels[k]).sort((a, b) => a - b);
  return steps[steps.length >> 1] ?? 1;
}

export class Controls {
  unused = [];

  constructor(viewer) {
    const { figures, store } = viewer;
    this.viewer = viewer;
    this.figures = figures;
    this.store = store;
    const { labels: { groups }, metrics, scopes, blocks } = figures.data;
    this.text = figures.text;
    const say = (key, values) => this.text.say(key, values);
    const set = (name) => (value) => store.set({ [name]: value });
    this.metric = menu("sv-metric", say("metric"), metrics.map(({ key, label }) => [key, label]),
      set("metric"));
    const named = (keys) =>
      keys.map((key) => [key, groups[key] ?? this.text.words[`scope_${key}`] ?? key]);
    const inBlocks = blocks.length ? [[say("blocks"), named(blocks)]] : [];
    this.scope = menu("sv-scope", say("scope"), [...named(scopes), ...inBlocks],
      (modules) => store.set({ modules, selection: [] }));
    this.search = make("input", { type: "search", className: "sv-search",
      placeholder: say("search"), ariaLabel: say("search"),
      on: { input: () => store.set({ search: this.search.value }),
        keydown: (event) =>
          event.key === "Enter" && store.select(figures.matching(store.state), false, true) } });
    this.sentence = make("p", { className: "sv-sentence", role: "status" });
    if (!figures.isPair) this.buildLevel(say, set);
    const bar = figures.isPair
      ? [this.metric, this.scope, this.search]
      : [this.sides[0].variant, this.slider, this.sides[0].level, this.layout, this.metric,
        this.search];
    const { title } = figures.data;
    this.bar = make("div", { className: "sv-bar" },
      make("b", { className: "sv-title", textContent: title, title }), ...bar);
    this.said = make("div", { className: "sv-said" }, this.versus, this.sentence, this.budget);
  }

  buildLevel(say, set) {
    const { figures, store } = this;
    const inStudy = figures.variants.map(({ name, label }) => [`variant ${name}`, label]);
    const predicted = figures.policies.map((one) => [`policy ${one.key}`, one.label, one.disabled]);
    const options = [[say("in_study"), inStudy], [say("at_any_level"), predicted]];
    const labels = [["show", "level_field", "sv-level"], ["against", "against_level",
      "sv-against-level"]];
    // The fields of each side. The first level of side B is that of A.
    this.sides = SIDES.map((side, k) => {
      const [[shown, policy, share], [label, levelLabel, className]] = [side, labels[k]];
      const variant = menu(`sv-${shown}`, say(label), options, (value) => {
        const [kind, name] = value.split(/ (.*)/s);
        const { state } = store;
        const sparsity = state[state[shown] === AT_LEVEL ? share : "sparsity"];
        store.set(kind === "variant" ? { [shown]: name } : { [policy]: name, [share]: sparsity });
      });
      const level = make("input", { className, inputMode: "decimal", ariaLabel: say(levelLabel),
        on: { change: () => this.type(level, side) } });
      return { variant, level };
    });
    this.versus = make("div", { className: "sv-versus" }, ...Object.values(this.sides[1]),
      button(this.text, "swap", () => store.swap()));
    const move = () => store.set({ sparsity: Number(this.slider.value) / 100 });
    this.slider = make("input", { type: "range", className: "sv-slider", min: 0,
      ariaLabel: say("slider"), step: "any",
      on: { input: move, keydown: (event) => this.walk(event),
        pointerdown: () => store.state.variant === AT_LEVEL || move() } });
    const layouts = LAYOUTS.map((key) => [key, say(`as_${key}`)]);
    this.layout = menu("sv-layout", say("layout"), layouts, set("layout"));
    // Enter answers again for another view, where the text has not changed.
    const keep = () => this.keep(this.budget.value);
    this.budget = make("input", { className: "sv-budget", ariaLabel: say("budget"),
      placeholder: say("budget_hint", { example: example(figures) }),
      on: { change: keep, keydown: ({ key }) => key === "Enter" && keep() } });
  }

  // Name of what is in view: a variant, a level, or both sides.
  shown(state) {
    const { figures, text } = this;
    if (figures.isPair) return "";
    if (!figures.compares(state)) return figures.shown(state);
    const [a, b] = [state, figures.other(state)].map((side) => figures.shown(side));
    return text.say("sides", { a, b });
  }

  // Always drawn, as NaN differs from NaN: a field may hold a text that changed no value.
  measure() {
    return [NaN];
  }

  update(state) {
    this.metric.value = state.metric;
    if (this.search.value !== state.search) this.search.value = state.search;
    this.scope.value = state.modules;
    const { figures, figures: { data }, text } = this;
    if (!figures.isPair) return this.updateLevel(state);
    const { kind, label: metric, note } = figures.metric(state);
    const value = figures.value(figures.metric(state), figures.scope(state.modules, state));
    const words = { title: data.title, metric, value: text.value(value, kind), note };
    return show(this.sentence, text.say("pair_sentence", words));
  }

  updateLevel(state) {
    const { figures, figures: { data }, text } = this;
    const [policy, compares] = [figures.policyOf(state), figures.compares(state)];
    this.layout.value = state.layout;
    this.versus.hidden = !compares;
    this.slider.disabled = !policy;
    // Levels that were added are between the steps of the slider, which is in percent.
    this.slider.max = 100 * (policy?.levels.at(-1) ?? 0);
    this.slider.value = 100
      * (figures.isLevel(state) ? state.sparsity : figures.sums(state).share ?? 0);
    const { activeElement } = this.bar.getRootNode();
    // A budget goes with its answer.
    if (activeElement !== this.budget && !this.answer?.isConnected) this.budget.value = "";
    this.sides.slice(0, compares ? 2 : 1).forEach(({ variant, level }, k) => {
      const side = k ? figures.other(state) : state;
      const isLevel = figures.isLevel(side);
      variant.value = isLevel ? `policy ${side.policy}` : `variant ${side.variant}`;
      level.disabled = !policy;
      const share = isLevel ? text.level(side.sparsity) : text.percent(figures.sums(side).share);
      const { value, defaultValue } = level;
      if (activeElement !== level || value === defaultValue) level.value = share;
      level.defaultValue = share;
    });
    const words = { shown: this.shown(state), ...figures.written(state) };
    this.slider.setAttribute("aria-valuetext", text.say("spoken", words));
    const score = figures.score(state);
    if (compares) return this.compare(state);
    const parts = [capital(text.say("sentence", words))];
    if (data.quality || data.scores?.length) {
      parts.push(score ? capital(text.say("score", score)) : text.say("not_measured"));
    }
    const step = figures.isLevel(state) ? stepOf(policy) : 0.01;
    if (text.level(step) !== text.level(0.01)) {
      parts.push(text.say("level_steps", { step: text.level(step) }));
    }
    show(this.sentence, parts.join(" "));
    this.sentence.title = data.packed ?? "";
  }

  // Name both sides with their figures and their difference.
  compare(state) {
    const { figures, text } = this;
    const metric = figures.metric(state);
    const [a, b] = [state, figures.other(state)].map((side) => ({ name: figures.shown(side),
      score: figures.score(side), ...figures.sums(side) })
    );
    const isUnknown = (i) => figures.value(metric, [i]) === null;
    const unknown = figures.matching(state).filter(isUnknown).length;
    const points = known(a.share) && known(b.share) ? a.share - b.share : null;
    const parts = [
      text.say("sentence_sides", { a: a.name, b: b.name, share_a: text.percent(a.share),
        share_b: text.percent(b.share), prunable: text.scaled(a.prunable),
        difference: text.points(points) }),
      unknown && text.say("sides_unknown", { n: text.count(unknown) }),
      a.score && b.score && capital(text.say("score_sides", { ...a.score, other: b.score.score })),
    ];
    show(this.sentence, parts.filter(Boolean).join(" "));
  }

  // Arrow keys move to the next level.
  walk(event) {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const { figures, store: { state } } = this;
    const { levels } = figures.policyOf(state);
    const now = figures.isLevel(state) ? state.sparsity : Number(this.slider.value) / 100;
    const beyond = levels.filter((level) => by * (level - now) > 1e-9);
    if (beyond.length) this.store.set({ sparsity: beyond.at(by > 0 ? 0 : -1) });
  }

  // Show a level in percent: exactly, or the nearest one where the kernel does not count it.
  async type(field, side) {
    const [, policyKey, share] = side;
    const { figures, store, text, viewer } = this;
    const content = field.value;
    const number = content.replace(/[%\s]/g, "").replace(",", ".");
    // As many digits as a level is written with.
    const sparsity = Math.round(1e4 * Number(/^[0-9]*\.?[0-9]+$/.exec(number) ?? NaN)) / 1e6;
    field.value = field.defaultValue;
    if (!(sparsity < 1)) {
      return viewer.tools.tell(text.say("level_unread", { content: clip(content, 40) }));
    }
    const before = store.state;
    const policy = figures.policyOf({ policy: before[policyKey] });
    const k = figures.place(policy, sparsity);
    let level = policy.levels[k];
    const nearest = policy.patterns?.[k] ?? text.level(level);
    const about = { level: text.level(sparsity), policy: policy.label, nearest };
    const key = policy.patterns ? "level_pattern" : "level_nearest";
    let said = Math.abs(level - sparsity) < 1e-9 ? "" : text.say(key, about);
    const isExact = !said && !policy.slack[k];
    if (!isExact && viewer.kernel && figures.data.hasWeights && !policy.patterns) {
      const answer = await viewer.ask({ type: "level", level: { policy: policy.key, sparsity } });
      if (answer.type === "error") return;
      [level, said] = [sparsity, answer.text];
    }
    // A longer payload has another viewer. What was done meanwhile is the later wish.
    const { tools, store: current } = viewer.root.viewer;
    if (side.some((name) => current.state[name] !== before[name])) return;
    current.set({ [policyKey]: policy.key, [share]: level });
    tools.tell(said, side);
  }

  // Move the slider to the level that keeps a budget in the layout in view; name those of others.
  keep(content) {
    const { store, viewer: { tools } } = this;
    if (!content.trim()) return tools.tell("");
    const { level, text, places = [] } = solve(this.figures, store.state, content);
    if (level !== undefined) store.set({ sparsity: level });
    const actions = places.flatMap(({ text: textContent, level: sparsity, layout }) => {
      const click = () => store.set({ sparsity, layout });
      return [" ", make("button", { type: "button", textContent, on: { click } })];
    });
    this.answer = make("span", {}, text, ...actions);
    return tools.tell(this.answer, level || places[0] ? [...SIDES[0], "layout"] : null);
  }
}
