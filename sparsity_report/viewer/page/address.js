// Settings of the reader, stored after the # of the address: a section, the theme, and the state of
// the viewer. Invalid parts are ignored.
export class Address {
  static LONGEST = 4000;
  static WAIT = 250;

  constructor(scheme) {
    this.scheme = scheme;
    this.section = "";
    this.restore();
    for (const event of ["input", "click"]) {
      document.addEventListener(event, () => this.later(), { capture: true });
    }
    addEventListener("hashchange", () => {
      this.restore();
      this.later();
    });
    document.addEventListener("viewer-change", ({ target }) => this.follow(target));
    this.follow(document.querySelector(".sparsity-viewer"));
  }

  // Keep the traits of the viewer, which opens later than the page.
  follow(root) {
    if (!root?.viewer) return;
    if (!this.root) {
      this.root = root;
      this.first = root.viewer.state;
      this.restore();
    }
    this.later();
  }

  // Show the traits of an address, if they are values of their controls.
  restoreTraits(given) {
    const { figures, store } = this.root.viewer;
    const traits = given.map(([name, text]) => [name, this.trait(name, text)]).filter(([, value]) =>
      value !== undefined
    );
    if (!traits.length) return;
    const state = { ...store.state, ...store.internal(Object.fromEntries(traits)) };
    const { levels } = figures.policyOf?.(state) ?? {};
    if (levels) state.sparsity = levels[figures.place({ levels }, state.sparsity)];
    store.restore(store.settled(state));
  }

  trait(name, text) {
    if (!Object.hasOwn(this.first, name)) return undefined;
    const control = { modules: "scope", policy: "variant" }[name] ?? name;
    const heads = name === "sort" ? "[data-sort]" : `select.sv-${control} option`;
    const known = [...this.root.querySelectorAll(heads)].map(({ value, dataset }) =>
      dataset.sort ?? value.replace(/^(variant|policy) /, "")
    );
    if (known.length && text !== "at level" && !known.includes(text.replace(/^-/, ""))) {
      return undefined;
    }
    const first = this.first[name];
    if (typeof first === "string") return text;
    try {
      const value = JSON.parse(text);
      return typeof value === typeof first && Array.isArray(value) === Array.isArray(first)
        ? value
        : undefined;
    } catch {
      return undefined;
    }
  }

  // Return the traits that differ from those of the first state.
  traits() {
    const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
    return Object.entries(this.root?.viewer.state ?? {}).map((
      [name, value],
    ) => [name, text(value) === text(this.first[name]) ? "" : text(value)]);
  }

  restore() {
    this.known = location.hash;
    const text = this.known.slice(1);
    if (text.length > Address.LONGEST) return;
    const given = [...new URLSearchParams(text)];
    const [first, value] = given[0] ?? ["", ""];
    const section = value === "" && document.getElementById(first);
    this.section = section ? first : "";
    if (section && "open" in section) section.open = true;
    for (const [name, text] of given) if (name === "scheme") this.scheme?.set(text);
    if (this.root) this.restoreTraits(given);
    // Instantly: a link that moves with the scrolled page would lose the reader's click.
    if (section && given.length > 1) section.scrollIntoView({ behavior: "instant" });
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.write(), Address.WAIT);
  }

  write() {
    if (document.querySelector(".sparsity-viewer:not(.sv-ready)")) return;
    if (location.hash !== this.known) this.restore(); // the event of a link comes later
    const changed = [["scheme", this.scheme?.get()], ...this.traits()].filter(([, value]) =>
      value && value.length < Address.LONGEST / 4
    );
    const parts = [this.section, new URLSearchParams(changed).toString()].filter(Boolean);
    const kept = parts.length ? `#${parts.join("&")}` : "";
    if (kept === location.hash) return;
    try {
      history.replaceState(null, "", kept || location.pathname + location.search);
      this.known = location.hash;
    } catch {
      // Some frames do not allow changes of the address.
    }
  }
}
