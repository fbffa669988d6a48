// The viewer: one screen over a payload; a kernel is asked only for what the payload cannot hold.
import { open } from "./data.js";
import { AT_LEVEL, Figures, LAYOUTS } from "./figures.js";
import { solve } from "./budget.js";
import { Store } from "./state.js";
import { download, draw, element, file } from "./pictures.js";
import { HeatMap } from "./map.js";
import { Table, asText, columns } from "./table.js";
import { costs, experts, groups, layer, quality, removed, sharedZeros } from "./details.js";

const LEVEL = ["policy", "sparsity"];
const SHARED = [...LEVEL, "variant", "layout", "metric", "against", "modules", "grouping", "sort", "curve", "search", "selection", "detail"];
// Names of traits that differ: ipywidgets has a layout of its own, and a pair other words.
const OF_TRAITS = { layout: "byte_layout" };
const OF_PAIR = { modules: "group", detail: "module" };
// Forms of a copy; the kernel writes the last.
const COPIES = ["table", "python", "command"];
// Widths of saved pictures in points: a column and a page.
const PICTURES = { svg: "SVG", png: "PNG", pdf: "PDF" };
const SIZES = { column: 244, page: 505 };
const DAMAGED = "The data of this viewer are damaged. Run the cell again, or write the page again.";

function make(tag, options = {}, ...children) {
  const { attributes = {}, on = {}, ...rest } = options;
  const made = Object.assign(document.createElement(tag), rest);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  for (const [event, act] of Object.entries(on)) made.addEventListener(event, act);
  made.append(...children.filter(Boolean));
  return made;
}

// Create a menu; options are [value, text, reason why it is disabled].
function menu(className, label, options, act) {
  const made = make("select", { className, title: label, attributes: { "aria-label": label }, on: { change: () => act(made.value) } });
  const option = ([value, text, reason]) => make("option", { value, textContent: reason ? `${text} (${reason})` : text, disabled: Boolean(reason) });
  // A group is a text with its options.
  made.append(...options.map((one) => (Array.isArray(one[1]) ? make("optgroup", { label: one[0] }, ...one[1].map(option)) : option(one))));
  return made;
}

const isPlainKey = (event) => (!event.ctrlKey && !event.metaKey) || ["z", "y"].includes(event.key.toLowerCase());
const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

class Viewer {
  constructor(root, data, start, kernel) {
    Object.assign(this, { root, data, kernel });
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
    // Keep plain keys from the shortcuts of a notebook, which look at the element with the focus.
    const guard = (event) => {
      const [target] = event.composedPath();
      if (event.composedPath().includes(root)) target.toggleAttribute("data-lm-suppress-shortcuts", isPlainKey(event));
    };
    window.addEventListener("keydown", guard, { capture: true, signal: this.ended.signal });
    root.addEventListener("keydown", (event) => this.key(event), { signal: this.ended.signal });
    this.sized = new ResizeObserver(() => this.update(this.store.state));
    this.sized.observe(root);
    this.update(this.store.state);
  }

  say(key, values) {
    return this.text.say(key, values);
  }

  build() {
    const { data, store, figures, text } = this;
    const say = (key, values) => this.say(key, values);
    const inStudy = figures.variants.map(({ name, label }) => [`variant ${name}`, label]);
    const predicted = figures.policies.map(({ key, label, disabled }) => [`policy ${key}`, label, disabled]);
    this.variant = menu("sv-variant", say("show"), [[say("in_study"), inStudy], [say("at_any_level"), predicted]], (value) => {
      const name = value.slice(value.indexOf(" ") + 1);
      store.set(value.startsWith("variant") ? { variant: name } : { policy: name });
    });
    this.slider = make("input", { type: "range", className: "sv-slider", min: 0, attributes: { "aria-label": say("slider") }, on: { input: () => this.move(Number(this.slider.value)), pointerdown: () => store.state.variant === AT_LEVEL || this.move(Number(this.slider.value)) } });
    this.marks = element("svg", { class: "sv-marks", "aria-hidden": "true" });
    this.level = make("input", { className: "sv-level", inputMode: "decimal", attributes: { "aria-label": say("level_field") }, on: { change: () => this.type(this.level.value) } });
    this.layout = menu("sv-layout", say("layout"), LAYOUTS.map((key) => [key, say(`as_${key}`)]), (layout) => store.set({ layout }));
    this.metric = menu("sv-metric", say("metric"), figures.metrics.map(({ key, label }) => [key, label]), (metric) => store.set({ metric }));
    this.against = menu("sv-against", say("against"), figures.variants.map(({ name, label }) => [name, say("minus", { name: label })]), (against) => store.set({ against }));
    this.scope = menu("sv-scope", say("scope"), data.scopes.map((key) => [key, ["prunable", "all"].includes(key) ? say(`scope_${key}`) : data.labels.groups[key] ?? key]), (modules) => store.set({ modules, selection: [] }));
    this.search = make("input", { type: "search", className: "sv-search", placeholder: say("search"), attributes: { "aria-label": say("search") }, on: {
      input: () => store.set({ search: this.search.value }),
      keydown: (event) => event.key === "Enter" && store.select(figures.matching(store.state), false, true),
    } });
    this.sentence = make("p", { className: "sv-sentence", attributes: { role: "status" } });
    this.budget = make("input", { className: "sv-budget", placeholder: say("budget_hint"), attributes: { "aria-label": say("budget") }, on: { change: () => this.keep(this.budget.value) } });
    const bar = data.kind === "pair" ? [this.metric, this.scope, this.search]
      : [this.variant, make("div", { className: "sv-track" }, this.slider, this.marks), this.level, this.layout, this.metric, this.against, this.search];
    const [left, right] = [make("div", { className: "sv-left" }), make("div", { className: "sv-right" })];
    this.tabs = ["layer", "groups", ...(data.policies?.some(({ disabled }) => !disabled) || data.quality ? ["costs"] : []), ...(data.experts?.length ? ["experts"] : []), ...(data.removed?.length ? ["removed"] : [])].map((panel) =>
      make("button", { type: "button", textContent: say(`panel_${panel}`), attributes: { role: "tab", "data-panel": panel }, on: { click: () => store.set({ panel }), keydown: (event) => this.walk(event) } }));
    this.grouping = menu("sv-grouping", say("grouping"), ["group", "projection", "block"].map((key) => [key, say(`by_${key}`)]), (grouping) => store.set({ grouping }));
    this.curve = menu("sv-curve", say("curve"), ["quality", "bytes"].map((key) => [key, say(`curve_${key}`)]), (curve) => store.set({ curve }));
    this.details = make("div", { className: "sv-details", tabIndex: 0, attributes: { role: "tabpanel" } });
    right.append(make("div", { className: "sv-tabs", attributes: { role: "tablist", "aria-label": say("panels") } }, ...this.tabs), this.grouping, this.curve, this.details);
    this.selection = make("div", { className: "sv-selection" });
    this.notice = make("div", { className: "sv-notice", attributes: { role: "status" } });
    const body = make("div", { className: "sv-body" }, left, right);
    const said = make("div", { className: "sv-said" }, this.sentence, data.kind === "pair" ? null : this.budget);
    this.root.replaceChildren(make("div", { className: "sv-bar" }, ...bar), said, body, this.selection);
    this.root.classList.toggle("sv-pair", data.kind === "pair");
    this.root.setAttribute("role", "group");
    this.root.setAttribute("aria-label", say("viewer", { title: data.title }));
    this.map = new HeatMap(left, figures, store);
    this.buildSelection();
    this.table = new Table(this.root, figures, store);
    this.root.append(this.tools(), this.notice);
  }

  button(name, act, reason = "") {
    return make("button", { type: "button", className: `sv-${name}`, textContent: this.say(name), title: reason || this.say(`${name}_tip`), disabled: Boolean(reason), on: { click: act } });
  }

  tools() {
    const { store } = this;
    this.rowCount = make("span", { className: "sv-rowcount" });
    [this.undo, this.redo] = [this.button("undo", () => store.go(-1)), this.button("redo", () => store.go(1))];
    this.reset = this.button("reset", () => store.reset());
    const reason = this.kernel ? "" : this.say("needs_kernel");
    const forms = this.figures.isPair ? COPIES.slice(0, 1) : COPIES;
    const form = menu("sv-form", this.say("copy_form"), forms.map((key, k) => [key, this.say(`copy_${key}`), k > 1 && reason]), () => {});
    const pictures = Object.keys(SIZES).flatMap((size) => Object.entries(PICTURES).map(([kind, label]) => [`${kind} ${size}`, this.say(`picture_${size}`, { kind: label })]));
    const [kind, theme] = [menu("sv-kind", this.say("picture_form"), pictures, () => {}), menu("sv-theme", this.say("theme"), ["light", "dark"].map((key) => [key, this.say(key)]), () => {})];
    return make("div", { className: "sv-tools" }, this.rowCount, ...(this.figures.isPair ? [] : [this.scope]), this.undo, this.redo, this.reset,
      form, this.button("copy", () => this.copy(form.value)), this.button("csv", () => this.csv()), kind, theme, this.button("save", () => this.save(kind.value, theme.value)));
  }

  // Controls for a selection, which exist once and are shown as needed.
  buildSelection() {
    const { store, kernel, data } = this;
    this.sum = make("span", { className: "sv-sum" });
    const reason = data.kind === "study" && !data.hasWeights ? this.say("needs_weights") : "";
    this.add = this.button("add", () => this.ask({ type: "add" }), reason);
    this.compare = this.button("compare", () => store.set({ metric: "difference" }));
    this.clear = this.button("clear", () => store.set({ selection: [] }));
    this.selection.replaceChildren(this.sum, ...(this.figures.isPair ? [] : [this.compare, ...(kernel ? [this.add] : [])]), this.clear);
  }

  // Name of the variant or level in view.
  shown(state) {
    if (this.figures.isPair) return this.data.title;
    if (!this.figures.isLevel(state)) return this.figures.variant(state.variant).label;
    const policy = this.figures.policyOf(state);
    const pattern = policy.patterns?.[this.figures.place(policy, state.sparsity)];
    return pattern ? this.say("pattern", { pattern }) : this.say("level_of", { policy: policy.label, level: this.text.level(state.sparsity) });
  }

  update(state, before = null) {
    const { figures, text } = this;
    this.metric.value = state.metric;
    if (this.search.value !== state.search) this.search.value = state.search;
    this.scope.value = state.modules;
    if (figures.isPair) this.sentence.textContent = this.pairSentence(state);
    else this.updateLevel(state);
    if (before && before.modules !== state.modules) this.map.zoomed = null;
    this.map.update(state);
    this.updateDetails(state);
    this.updateSelection(state);
    this.table.update(state);
    this.rowCount.textContent = this.say("rows", { shown: text.count(this.table.rows.length), all: text.count(figures.scope(state.modules, state).length) });
    this.undo.disabled = this.store.at === 0 && state === this.store.steps[0];
    this.redo.disabled = this.store.at + 1 >= this.store.steps.length;
    this.reset.disabled = state === this.store.first;
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
    const place = policy ? figures.place(policy, state.sparsity) : 0;
    Object.assign(this.slider, { max: policy ? policy.levels.length - 1 : 0, value: place });
    const share = isLevel ? text.level(state.sparsity) : text.percent(sums.share);
    if (this.root.getRootNode().activeElement !== this.level) this.level.value = share;
    this.drawMarks(state, policy);
    const words = {
      shown: this.shown(state), share: text.percent(sums.share), prunable: text.scaled(sums.prunable), layout: this.say(`as_${state.layout}`),
      bytes: text.scaled(sums.bytes, "B"), ratio: text.times(sums.ratio), flops: text.scaled(sums.flops, "FLOPs"), flopsRatio: text.times(sums.flopsRatio),
    };
    this.slider.setAttribute("aria-valuetext", this.say("spoken", words));
    const score = figures.score(state);
    const parts = [capital(this.say("sentence", words))];
    if (data.quality || data.scores?.length) parts.push(score ? capital(this.say("score", score)) : this.say("not_measured"));
    this.sentence.textContent = parts.join(" ");
    this.sentence.title = data.packed ?? "";
  }

  // Measured variants and break-even on the track of the slider.
  drawMarks(state, policy) {
    if (!policy) return this.marks.replaceChildren();
    const { figures, data } = this;
    const last = policy.levels.at(-1) || 1;
    const width = this.marks.clientWidth || 200;
    const x = (share) => Math.min(1, share / last) * width;
    const shapes = (data.marks ?? []).map(([place, share]) => ({ t: "line", x1: x(share), x2: x(share), y1: 0, y2: 6, stroke: "soft", width: 2, tip: figures.variants[place].label }));
    const even = figures.breakEven(state.layout);
    if (even !== null && even <= last) {
      const label = this.say(Math.max(x(even), width - x(even)) > 220 ? "break_even" : "break_even_short", { layout: this.say(`layout_${state.layout}`), share: this.text.percent(even) });
      const end = x(even) > width / 2;
      shapes.push({ t: "line", x1: x(even), x2: x(even), y1: -4, y2: 10, stroke: "dense", width: 2 });
      shapes.push({ t: "text", x: x(even) + (end ? -5 : 5), y: 17, anchor: end ? "end" : "start", size: 11, fill: "dense", text: label });
    }
    draw(this.marks, { shapes, width, height: 20 });
  }

  pairSentence(state) {
    const metric = this.figures.metric(state);
    const value = this.text.value(this.figures.value(metric, this.figures.scope(state.modules, state)), metric.kind);
    return this.say("pair_sentence", { title: this.data.title, metric: metric.label, value, note: metric.note });
  }

  updateDetails(state) {
    for (const tab of this.tabs) {
      const isShown = tab.dataset.panel === state.panel;
      tab.setAttribute("aria-selected", String(isShown));
      tab.tabIndex = isShown ? 0 : -1;
    }
    this.grouping.hidden = state.panel !== "groups";
    this.curve.hidden = state.panel !== "costs" || !this.data.quality || !this.data.policies?.some(({ disabled }) => !disabled);
    [this.grouping.value, this.curve.value] = [state.grouping, state.curve];
    const picture = (plan) => {
      const svg = element("svg", { role: "img", "aria-label": plan.description });
      draw(svg, plan);
      return svg;
    };
    if (state.panel === "layer") {
      const about = layer(this.figures, state, this.panelWidth);
      const note = (textContent) => textContent && make("p", { className: "sv-note", textContent, title: textContent });
      const list = about.list && make("dl", {}, ...about.list.flatMap(([term, value]) => [make("dt", { textContent: term }), make("dd", { textContent: value })]));
      const parts = [make("p", { className: "sv-heading", textContent: about.heading }), note(about.note), make("p", { textContent: about.lines.join(" ") }), ...about.pictures.map(picture), list, note(about.reason)];
      this.details.replaceChildren(...parts.filter(Boolean));
      if (about.wantsHistogram && this.kernel && this.wanted !== state.detail) {
        this.wanted = state.detail;
        this.kernel.send({ type: "histogram", module: this.figures.modules.names[state.detail] });
      }
      return;
    }
    const plan = this.panelPicture(state);
    const note = plan ? plan.note : this.say("no_levels");
    this.details.replaceChildren(...[plan && picture(plan), note && make("p", { className: "sv-note", textContent: note, title: note })].filter(Boolean));
    const svg = this.details.querySelector("svg");
    if (plan?.at && svg) {
      const pull = (event) => event.buttons & 1 && this.store.set({ sparsity: plan.at(((event.clientX - svg.getBoundingClientRect().left) / svg.getBoundingClientRect().width) * plan.width) });
      svg.addEventListener("pointerdown", pull);
      svg.addEventListener("pointermove", pull);
    }
  }

  get panelWidth() {
    return Math.max(240, Math.min(440, this.details.clientWidth));
  }

  panelPicture(state, width = this.panelWidth) {
    if (state.panel === "groups") return groups(this.figures, state, width);
    if (state.panel === "experts") return experts(this.figures, state, width);
    if (state.panel === "removed") return removed(this.figures, state, width);
    const isQuality = this.data.quality && (state.curve === "quality" || this.curve.hidden);
    if (state.panel === "costs") return (isQuality ? quality : costs)(this.figures, state, width);
    return layer(this.figures, state, width).pictures[0] ?? null;
  }

  updateSelection(state) {
    const { figures, text } = this;
    const { length } = state.selection;
    for (const part of [this.compare, this.clear]) part.hidden = !length;
    this.add.hidden = !figures.isLevel(state);
    this.compare.hidden ||= state.metric === "difference" || !figures.metrics.some(({ key }) => key === "difference");
    const parts = [];
    if (length && figures.isPair) parts.push(this.say("selected", { n: text.count(length) }));
    else if (length) {
      const sums = figures.sums(state, state.selection);
      parts.push(this.say("selected_sums", { n: text.count(length), weights: text.scaled(sums.prunable), share: text.percent(sums.share), bytes: text.scaled(sums.bytes, "B"), ratio: text.times(sums.ratio), layout: this.say(`as_${state.layout}`) }));
      if (sums.slack) parts.push(this.say("selected_slack", { slack: text.count(sums.slack) }));
    } else parts.push(this.say("select_hint"));
    if (state.metric === "difference") {
      if (!length) parts.pop();
      parts.push(sharedZeros(figures, state, length ? state.selection : figures.scope(state.modules, state)));
    }
    this.sum.textContent = parts.join(" ");
  }

  move(place) {
    const policy = this.figures.policyOf(this.store.state);
    if (policy) this.store.set({ sparsity: policy.levels[place] });
  }

  type(content) {
    const number = Number(content.replace(/[%\s\u202f\u00a0]/g, "").replace(",", "."));
    this.level.blur();
    if (content.trim() && number >= 0 && number < 100) this.store.set({ sparsity: number / 100 });
    else this.update(this.store.state);
  }

  keep(content) {
    if (!content.trim()) return this.tell("");
    const found = solve(this.figures, this.store.state, content);
    if (found.level !== undefined) this.store.set({ sparsity: found.level, ...(found.dense ? { layout: "dense" } : {}) });
    this.tell(found.text);
  }

  ask(message) {
    this.store.rest();
    this.tell(this.say("waiting"));
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.tell(this.say("no_answer")), 3000);
    this.kernel.send(message);
  }

  answer(message) {
    clearTimeout(this.waiting);
    if (message.type === "copied") return this.clip(message.text, this.say("copied"));
    if (message.type === "histogram") {
      this.figures.fetched.set(this.figures.positions.get(message.module), { top: message.top, heights: message.heights });
      return this.update(this.store.state);
    }
    return this.tell(message.text ?? "");
  }

  tell(content) {
    this.notice.replaceChildren(content);
  }

  // Copy a text; where the page may not, show it for copying by hand.
  async clip(content, done) {
    try {
      await navigator.clipboard.writeText(content);
      this.tell(done);
    } catch {
      const place = make("textarea", { readOnly: true, value: content, attributes: { "aria-label": this.say("by_hand") } });
      this.notice.replaceChildren(this.say("by_hand"), place);
      place.select();
    }
  }

  copy(form) {
    const { state } = this.store;
    if (form === "table") return this.clip(asText(columns(this.figures, state), this.table.rows, "\t"), this.say("copied"));
    if (form === "python") return this.clip(this.code(state), this.say("copied"));
    return this.ask({ type: "copy", form });
  }

  // Statements that show this state again. Setting a level or a variant changes what they name.
  code(state) {
    const [now, first] = [this.store.traits(state), this.store.traits(this.store.first)];
    const literal = (value) => (value === null ? "None" : JSON.stringify(value));
    const isChanged = (name) => JSON.stringify(now[name]) !== JSON.stringify(first[name]);
    const level = this.figures.isLevel(state) ? LEVEL.filter((name) => name === "sparsity" || isChanged(name)) : [];
    const others = SHARED.filter((name) => !LEVEL.includes(name) && (name === "layout" || isChanged(name)));
    const lines = [...level, ...others].map((name) => `explorer.${OF_TRAITS[name] ?? name} = ${literal(now[name])}`);
    return [this.data.code, "explorer = sr.explore(study)", ...lines, "explorer", ""].join("\n");
  }

  fileName(end) {
    const plain = `${this.data.title} ${this.shown(this.store.state)} ${this.store.state.metric}`.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
    return `${plain.replace(/[^a-z0-9_]+/g, "-").slice(0, 100).replace(/^-+|-+$/g, "") || "unnamed"}.${end}`;
  }

  csv() {
    download(new Blob([asText(columns(this.figures, this.store.state), this.table.rows, ",")], { type: "text/csv" }), this.fileName("csv"));
  }

  // Save the map with the picture beside it.
  async save(value, theme) {
    const { state } = this.store;
    const [kind, size] = value.split(" ");
    const width = SIZES[size];
    const metric = this.figures.metric(state);
    const top = this.map.picture(state, width, this.say("picture_title", { metric: metric.label, shown: this.shown(state) }));
    const panel = this.panelPicture(state, width);
    const shapes = (panel?.shapes ?? []).map((shape) => lowered(shape, top.height + 4));
    const picture = { ...top, shapes: [...top.shapes, ...shapes], height: top.height + (panel ? panel.height + 8 : 0) };
    download(await file(picture, kind, theme), this.fileName(kind));
  }

  // Arrow keys move through the tabs.
  walk(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const at = this.tabs.indexOf(event.target) + by;
    const next = this.tabs[(at + this.tabs.length) % this.tabs.length];
    next.click();
    next.focus();
  }

  key(event) {
    const isField = event.target.matches("input:not([type=range]), textarea");
    const name = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && !isField && (name === "z" || name === "y")) {
      event.preventDefault();
      this.store.go(name === "y" || event.shiftKey ? 1 : -1);
    }
    if (isPlainKey(event)) event.stopPropagation();
  }

  close() {
    this.ended.abort();
    this.sized.disconnect();
    clearTimeout(this.store.timer);
    clearTimeout(this.waiting);
  }
}

// Return a shape moved down.
function lowered(shape, down) {
  const next = { ...shape };
  for (const key of ["y", "y1", "y2"]) if (key in shape) next[key] = shape[key] + down;
  if (shape.points) next.points = shape.points.map(([x, y]) => [x, y + down]);
  return next;
}

// Show a payload in an element; a damaged one leaves a sentence.
async function mount(root, payload, { start = {}, kernel = null } = {}) {
  try {
    const data = await open(payload);
    root.viewer?.close();
    const viewer = new Viewer(root, data, start, kernel);
    root.viewer = viewer;
    viewer.figuresOf = () => viewer.figures;
    Object.defineProperty(viewer, "state", { get: () => viewer.store.traits(), configurable: true });
    viewer.set = (traits, options) => viewer.store.set(viewer.store.internal(traits), options);
    root.classList.add("sv-ready");
    root.dispatchEvent(new CustomEvent("viewer-change", { bubbles: true, detail: viewer.store.state }));
    return viewer;
  } catch (error) {
    root.replaceChildren(make("p", { className: "sv-sentence", textContent: root.dataset.damaged ?? DAMAGED, title: String(error) }));
    return null;
  }
}

// Views by key of an explorer, over all cells of the page.
const views = (globalThis.sparsityViews ??= new Map());
const asBytes = (view) => new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);

async function render({ model, el }) {
  const key = model.get("key");
  const root = make("div", { className: `sparsity-viewer sv-live-${key}` });
  el.append(root);
  views.set(key, (views.get(key) ?? 0) + 1);
  let viewer = null;
  const nameOf = (name) => ((viewer?.figures.isPair || model.get("group") !== undefined ? OF_PAIR : OF_TRAITS)[name] ?? name);
  const names = () => SHARED.filter((name) => model.get(nameOf(name)) !== undefined);
  const read = () => Object.fromEntries(names().map((name) => [name, model.get(nameOf(name))]));
  // Return the given traits that differ from others.
  const changes = (given, others) => Object.fromEntries(Object.entries(given).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(others[name])));
  // Traits on which page and kernel last agreed. Only differences from them are passed on: the page may not know yet
  // what the kernel has changed, and must not take it back.
  let agreed = {};
  // Opening data takes time; later messages wait until it is done.
  let last = Promise.resolve();
  const inTurn = (act) => (...given) => {
    const run = () => act(...given);
    last = last.then(run, run);
    return last;
  };
  const kernel = {
    send: (message) => model.send(message),
    share(traits) {
      const changed = changes(Object.fromEntries(names().map((name) => [name, traits[name]])), agreed);
      for (const [name, value] of Object.entries(changed)) model.set(nameOf(name), value);
      agreed = { ...agreed, ...changed };
      if (Object.keys(changed).length) model.save_changes();
    },
  };
  const show = inTurn(async () => {
    const start = read();
    viewer = await mount(root, asBytes(model.get("payload")), { start, kernel });
    agreed = start;
  });
  // Traits that the kernel changed, all of one message at once.
  let due = false;
  const apply = inTurn(() => {
    due = false;
    const changed = changes(read(), agreed);
    agreed = { ...agreed, ...changed };
    if (viewer && Object.keys(changed).length) viewer.store.restore({ ...viewer.store.state, ...viewer.store.internal(changed) });
  });
  const follow = () => {
    if (!due) setTimeout(apply);
    due = true;
  };
  const answer = inTurn((message) => viewer?.answer(message));
  for (const name of names()) model.on(`change:${nameOf(name)}`, follow);
  model.on("change:payload", show);
  model.on("msg:custom", answer);
  await show();
  return () => {
    for (const name of names()) model.off(`change:${nameOf(name)}`, follow);
    model.off("change:payload", show);
    model.off("msg:custom", answer);
    viewer?.close();
    views.set(key, views.get(key) - 1);
    // Another view may take the place of this one.
    setTimeout(() => views.get(key) > 0 || (views.delete(key) && model.send({ type: "closed" })), 2000);
  };
}

export default { render };
export { Figures, Store, file, mount, open, solve };
