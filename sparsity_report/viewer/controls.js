// The bar above the map: what is in view, the slider and its marks, the sentence and the budget.
import { solve } from "./budget.js";
import { make, menu } from "./elements.js";
import { AT_LEVEL, LAYOUTS, ratio } from "./figures.js";
import { draw, element } from "./pictures.js";

const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

export class Controls {
  constructor(figures, store, tell) {
    this.figures = figures;
    this.store = store;
    this.data = figures.data;
    this.text = figures.text;
    this.tell = tell;
    const say = (key, values) => this.text.say(key, values);
    const set = (name) => (value) => store.set({ [name]: value });
    const named = (options) => options.map(({ key, label }) => [key, label]);
    this.metric = menu("sv-metric", say("metric"), named(this.data.metrics), set("metric"));
    const { groups } = this.data.labels;
    const scopes = this.data.scopes.map((key) => [key, groups[key] ?? say(`scope_${key}`)]);
    this.scope = menu("sv-scope", say("scope"), scopes,
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
      : [this.variant, make("div", { className: "sv-track" }, this.slider, this.marks), this.level,
        this.layout, this.metric, this.against, this.search];
    this.bar = make("div", { className: "sv-bar" }, ...bar);
    this.said = make("div", { className: "sv-said" }, this.sentence, this.budget);
  }

  buildLevel(say, set) {
    const { figures, store } = this;
    const inStudy = figures.variants.map(({ name, label }) => [`variant ${name}`, label]);
    const predicted = figures.policies.map((
      { key, label, disabled },
    ) => [`policy ${key}`, label, disabled]);
    this.variant = menu("sv-variant", say("show"), [[say("in_study"), inStudy], [
      say("at_any_level"),
      predicted,
    ]], (value) => {
      const [kind, name] = [value.slice(0, 7).trim(), value.slice(value.indexOf(" ") + 1)];
      store.set({ [kind]: name });
    });
    const move = () => this.move(Number(this.slider.value));
    this.slider = make("input", { type: "range", className: "sv-slider", min: 0,
      ariaLabel: say("slider"),
      on: { input: move, pointerdown: () => store.state.variant === AT_LEVEL || move() } });
    this.marks = element("svg", { class: "sv-marks", "aria-hidden": "true" });
    this.level = make("input", { className: "sv-level", inputMode: "decimal",
      ariaLabel: say("level_field"), on: { change: () => this.type(this.level.value) } });
    const layouts = LAYOUTS.map((key) => [key, say(`as_${key}`)]);
    this.layout = menu("sv-layout", say("layout"), layouts, set("layout"));
    const others = figures.variants.map(({ name, label }) => [name, say("minus", { name: label })]);
    this.against = menu("sv-against", say("against"), others, set("against"));
    this.budget = make("input", { className: "sv-budget", placeholder: say("budget_hint"),
      ariaLabel: say("budget"), on: { change: () => this.keep(this.budget.value) } });
  }

  // Name of the variant or level in view.
  shown(state) {
    const { figures, text } = this;
    if (figures.isPair) return this.data.title;
    if (!figures.isLevel(state)) return figures.variant(state.variant).label;
    const policy = figures.policyOf(state);
    const pattern = policy.patterns?.[figures.place(policy, state.sparsity)];
    if (pattern) return text.say("pattern", { pattern });
    return text.say("level_of", { policy: policy.label, level: text.level(state.sparsity) });
  }

  update(state) {
    this.metric.value = state.metric;
    if (this.search.value !== state.search) this.search.value = state.search;
    this.scope.value = state.modules;
    if (this.figures.isPair) this.sentence.textContent = this.pairSentence(state);
    else this.updateLevel(state);
  }

  updateLevel(state) {
    const { figures, text, data } = this;
    const [policy, sums] = [figures.policyOf(state), figures.sums(state)];
    const isLevel = figures.isLevel(state);
    this.variant.value = isLevel ? `policy ${state.policy}` : `variant ${state.variant}`;
    this.layout.value = state.layout;
    this.against.value = state.against;
    this.against.hidden = state.metric !== "difference";
    for (const control of [this.slider, this.level]) control.disabled = !policy;
    this.setSlider(state, policy, sums.share);
    const { activeElement } = this.bar.getRootNode();
    const share = isLevel ? text.level(state.sparsity) : text.percent(sums.share);
    if (activeElement !== this.level) this.level.value = share;
    this.drawMarks(state, policy);
    const words = { shown: this.shown(state), share: text.percent(sums.share),
      prunable: text.scaled(sums.prunable), layout: text.say(`as_${state.layout}`),
      bytes: text.scaled(sums.bytes, "B"), ratio: text.times(sums.ratio) };
    this.slider.setAttribute("aria-valuetext", text.say("spoken", words));
    const score = figures.score(state);
    const parts = [capital(text.say("sentence", words))];
    if (data.quality || data.scores?.length) {
      parts.push(score ? capital(text.say("score", score)) : text.say("not_measured"));
    }
    this.sentence.textContent = parts.join(" ");
    this.sentence.title = data.packed ?? "";
  }

  // Levels are at whole numbers of the slider; the share of a variant may be between them.
  setSlider(state, policy, share) {
    const { levels } = policy ?? { levels: [0] };
    const last = levels.length - 1;
    const [step, value] = this.figures.isLevel(state)
      ? [1, this.figures.place(policy, state.sparsity)]
      : ["any", last * Math.min(1, ratio(share, levels[last]) ?? 0)];
    Object.assign(this.slider, { max: last, step, value });
  }

  // Measured variants and break-even on the track of the slider.
  drawMarks(state, policy) {
    if (!policy) return this.marks.replaceChildren();
    const { figures, data, text } = this;
    const [last, width] = [policy.levels.at(-1) || 1, this.marks.clientWidth || 200];
    const x = (share) => Math.min(1, share / last) * width;
    const shapes = (data.marks ?? []).map(([place, share]) => ({ t: "line", x1: x(share),
      x2: x(share), y1: 0, y2: 6, stroke: "soft", width: 2, tip: figures.variants[place].label })
    );
    const even = figures.breakEven(state.layout);
    if (even !== null && even <= last) {
      const key = Math.max(x(even), width - x(even)) > 220 ? "break_even" : "break_even_short";
      const words = { layout: text.say(`layout_${state.layout}`), share: text.percent(even) };
      const end = x(even) > width / 2;
      shapes.push({ t: "line", x1: x(even), x2: x(even), y1: -4, y2: 10, stroke: "dense",
        width: 2 }, { t: "text", x: x(even) + (end ? -5 : 5), y: 17, anchor: end ? "end" : "start",
        size: 11, fill: "dense", text: text.say(key, words) });
    }
    return draw(this.marks, { shapes, width, height: 20 });
  }

  pairSentence(state) {
    const { figures, text, data } = this;
    const metric = figures.metric(state);
    const value = figures.value(metric, figures.scope(state.modules, state));
    return text.say("pair_sentence", { title: data.title, metric: metric.label,
      value: text.value(value, metric.kind), note: metric.note });
  }

  move(place) {
    const policy = this.figures.policyOf(this.store.state);
    if (policy) this.store.set({ sparsity: policy.levels[Math.round(place)] });
  }

  type(content) {
    const number = Number(content.replace(/[%\s\u202f\u00a0]/g, "").replace(",", "."));
    this.level.blur();
    if (content.trim() && number >= 0 && number < 100) this.store.set({ sparsity: number / 100 });
    else this.updateLevel(this.store.state);
  }

  // Move the slider to the level that keeps a budget.
  keep(content) {
    if (!content.trim()) return this.tell("");
    const { level, dense, text } = solve(this.figures, this.store.state, content);
    if (level !== undefined) this.store.set({ sparsity: level, ...(dense && { layout: "dense" }) });
    return this.tell(text);
  }
}
