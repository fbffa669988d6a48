// The panel beside the map: tabs for one layer, groups, costs, experts and removed parts.
import { costs, experts, groups, layer, quality, removed } from "./details.js";
import { make, menu } from "./elements.js";
import { draw, element } from "./pictures.js";

const note = (text) => text && make("p", { className: "sv-note", textContent: text, title: text });

function picture(plan) {
  const svg = element("svg", { role: "img", "aria-label": plan.description });
  draw(svg, plan);
  return svg;
}

export class Panel {
  constructor(place, figures, store) {
    this.figures = figures;
    this.store = store;
    const { data, text } = figures;
    this.hasLevels = figures.policies.some(({ disabled }) => !disabled);
    const panels = ["layer", "groups", (this.hasLevels || data.quality) && "costs",
      data.experts?.length && "experts", data.removed?.length && "removed"];
    this.tabs = panels.filter(Boolean).map((panel) =>
      make("button", { type: "button", textContent: text.say(`panel_${panel}`), role: "tab",
        attributes: { "data-panel": panel }, on: { click: () =>
          store.set({ panel }), keydown: (event) => this.walk(event) } })
    );
    const groupings = ["group", "projection", "block"].map((key) => [key, text.say(`by_${key}`)]);
    this.grouping = menu("sv-grouping", text.say("grouping"), groupings,
      (grouping) => store.set({ grouping }));
    const curves = ["quality", "bytes"].map((key) => [key, text.say(`curve_${key}`)]);
    this.curve = menu("sv-curve", text.say("curve"), curves, (curve) => store.set({ curve }));
    this.details = make("div", { className: "sv-details", tabIndex: 0, role: "tabpanel" });
    place.append(
      make("div", { className: "sv-tabs", role: "tablist", ariaLabel: text.say("panels") },
        ...this.tabs),
      this.grouping,
      this.curve,
      this.details,
    );
  }

  get width() {
    return Math.max(240, Math.min(440, this.details.clientWidth));
  }

  update(state) {
    for (const tab of this.tabs) {
      const isShown = tab.dataset.panel === state.panel;
      tab.setAttribute("aria-selected", String(isShown));
      tab.tabIndex = isShown ? 0 : -1;
    }
    this.grouping.hidden = state.panel !== "groups";
    this.curve.hidden = state.panel !== "costs" || !this.figures.data.quality || !this.hasLevels;
    [this.grouping.value, this.curve.value] = [state.grouping, state.curve];
    const parts = state.panel === "layer" ? this.layerParts(state) : this.pictureParts(state);
    this.details.replaceChildren(...parts.filter(Boolean));
  }

  layerParts(state) {
    const { heading, note: about, lines, pictures, list, reason } = layer(this.figures, state,
      this.width);
    const terms = list?.flatMap((
      [term, value],
    ) => [make("dt", { textContent: term }), make("dd", { textContent: value })]);
    return [make("p", { className: "sv-heading", textContent: heading }), note(about),
      make("p", { textContent: lines.join(" ") }), ...pictures.map(picture),
      terms && make("dl", {}, ...terms), note(reason)];
  }

  pictureParts(state) {
    const plan = this.picture(state);
    if (!plan) return [note(this.figures.text.say("no_levels"))];
    const svg = picture(plan);
    if (plan.at) {
      const pull = (event) => {
        const { left, width } = svg.getBoundingClientRect();
        const x = ((event.clientX - left) / width) * plan.width;
        if (event.buttons & 1) this.store.set({ sparsity: plan.at(x) });
      };
      svg.addEventListener("pointerdown", pull);
      svg.addEventListener("pointermove", pull);
    }
    return [svg, note(plan.note)];
  }

  // Return the picture of the panel, or null.
  picture(state, width = this.width) {
    const { figures } = this;
    const isQuality = figures.data.quality && (state.curve === "quality" || this.curve.hidden);
    const plans = { groups, experts, removed, costs: isQuality ? quality : costs };
    if (plans[state.panel]) return plans[state.panel](figures, state, width);
    return layer(figures, state, width).pictures[0] ?? null;
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
}
