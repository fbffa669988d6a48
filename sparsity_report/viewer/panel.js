// The panel beside the map: tabs for one layer, groups and costs.
import { costs, groups, layer } from "./details.js";
import { element, make, menu, show } from "./elements.js";
import { squares } from "./parts.js";
import { draw } from "./pictures.js";

const note = (text) => text && make("p", { className: "sv-note", textContent: text, title: text });

export class Panel {
  // Elements of the pictures, which are used again.
  svgs = [];
  // Values of the state that the panel does not show.
  unused = ["sort", "search", "colors"];

  constructor(place, figures, store) {
    this.figures = figures;
    this.store = store;
    const { text } = figures;
    const hasLevels = figures.policies.some(({ disabled }) => !disabled);
    const panels = ["layer", "groups", hasLevels && "costs"];
    this.tabs = panels.filter(Boolean).map((panel) =>
      make("button", { type: "button", textContent: text.say(`panel_${panel}`), role: "tab",
        attributes: { "data-panel": panel }, on: { click: () =>
          store.set({ panel }), keydown: (event) => this.walk(event) } })
    );
    const groupings = ["group", "projection", "block"].map((key) => [key, text.say(`by_${key}`)]);
    this.grouping = menu("sv-grouping", text.say("grouping"), groupings,
      (grouping) => store.set({ grouping }));
    this.details = make("div", { className: "sv-details", tabIndex: 0, role: "tabpanel" });
    const tabs = make("div", { role: "tablist", ariaLabel: text.say("panels") }, ...this.tabs);
    place.append(make("div", { className: "sv-tabs" }, tabs, this.grouping), this.details);
  }

  measure() {
    return [this.width = Math.max(240, Math.min(440, this.details.clientWidth))];
  }

  update(state) {
    for (const tab of this.tabs) {
      const isShown = tab.dataset.panel === state.panel;
      tab.setAttribute("aria-selected", String(isShown));
      tab.tabIndex = isShown ? 0 : -1;
    }
    this.grouping.hidden = state.panel !== "groups";
    this.grouping.value = state.grouping;
    const plan = state.panel !== "layer" && this.picture(state);
    const parts = state.panel === "layer"
      ? this.layerParts(state)
      : plan
      ? [this.drawn(plan), note(plan.note)]
      : [note(this.figures.text.say("no_levels"))];
    const name = this.details.querySelector(".sv-parts :focus")?.getAttribute("name");
    show(this.details, ...parts);
    if (name) this.details.querySelector(`[name="${CSS.escape(name)}"]:checked`)?.focus();
  }

  layerParts(state) {
    const { heading, note: about, lines, pictures, list, reason } = layer(this.figures, state,
      this.width);
    const choose = (part, members) => {
      this.part = part;
      if (members) this.store.select(members, false, true);
      else this.update(this.store.state);
    };
    const hasParts = !this.figures.isPair && state.detail >= 0;
    const terms = list?.flat().map((textContent, k) => make(k % 2 ? "dd" : "dt", { textContent }));
    return [make("p", { className: "sv-heading", textContent: heading }), note(about),
      make("p", { textContent: lines.join(" ") }),
      ...hasParts ? squares(this.figures, state, this.part, choose) : [],
      ...pictures.map((plan, k) => this.drawn(plan, k)), terms && make("dl", {}, ...terms),
      note(reason)];
  }

  // Draw a picture in its element.
  drawn(plan, k = 0) {
    const svg = this.svgs[k] ??= element("svg", { role: "img" });
    svg.setAttribute("aria-label", plan.description);
    draw(svg, plan);
    return svg;
  }

  // Return the picture of the panel, or null.
  picture(state, width = this.width) {
    const { figures } = this;
    const plans = { groups, costs, layer: () => layer(figures, state, width).pictures[0] };
    return plans[state.panel]?.(figures, state, width) ?? null;
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
