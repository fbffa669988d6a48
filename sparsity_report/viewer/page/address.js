// Settings of the reader, stored after the # of the address: a section, the theme, and the state of
// the viewer. What is too long for it is kept for a reload. Invalid parts are ignored.
export class Address {
  static LONGEST = 4000;
  static WAIT = 250;
  static KEY = "sparsity-address";

  constructor(scheme) {
    this.scheme = scheme;
    this.section = "";
    this.comeBack();
    this.restore();
    for (const event of ["input", "click"]) {
      document.addEventListener(event, () => this.later(), { capture: true });
    }
    addEventListener("hashchange", () => {
      this.restore();
      this.later();
    });
    addEventListener("pagehide", () => this.leave());
    document.addEventListener("viewer-change", ({ target }) => this.follow(target));
    this.follow(document.querySelector(".sparsity-viewer"));
  }

  // Keep the traits of the viewer, which opens later than the page.
  follow(root) {
    if (!root?.viewer) return;
    if (!this.root) {
      this.root = root;
      this.first = root.viewer.kept;
      this.restore();
    }
    this.later();
  }

  // Show the traits of an address, if they are values of their controls.
  restoreTraits(given) {
    const value = ([name, text]) => {
      try {
        return [name, typeof this.first[name] === "string" ? text : JSON.parse(text)];
      } catch {
        return [name];
      }
    };
    this.root.viewer.recall(Object.fromEntries(given.map(value)));
  }

  // Return the traits that differ from those of the first state, as texts.
  traits() {
    const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
    return Object.entries(this.root?.viewer.kept ?? {}).map(([name, value]) => [name, text(value)])
      .filter(([name, value]) => value !== text(this.first[name]));
  }

  restore() {
    this.known = location.hash;
    const text = this.known.slice(1);
    if (text.length > Address.LONGEST) return;
    const given = [...new URLSearchParams(text), ...Object.entries(history.state?.viewer ?? {})];
    const [first, value] = given[0] ?? ["", ""];
    const section = value === "" && document.getElementById(first);
    this.section = section ? first : "";
    if (section && "open" in section) section.open = true;
    this.scheme?.set(new Map(given).get("scheme"));
    if (this.root) this.restoreTraits(given);
    // Instantly: a link that moves with the scrolled page would lose the reader's click.
    if (section && given.length > 1) section.scrollIntoView({ behavior: "instant" });
  }

  // Keep the last address for a reload, which began before it was written.
  leave() {
    this.write();
    try {
      sessionStorage.setItem(Address.KEY, JSON.stringify([location.href, history.state]));
    } catch {
      // Some frames have no storage.
    }
  }

  comeBack() {
    try {
      /** @type {any[]} */
      const [{ type }] = performance.getEntriesByType("navigation");
      const [address, state] = JSON.parse(sessionStorage.getItem(Address.KEY));
      const [before, now] = [address, location.href].map((one) => one.split("#")[0]);
      if (type === "reload" && before === now) history.replaceState(state, "", address);
    } catch {
      // Nothing was kept.
    }
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.write(), Address.WAIT);
  }

  write() {
    if (document.querySelector(".sparsity-viewer:not(.sv-ready)")) return;
    if (location.hash !== this.known) this.restore(); // the event of a link comes later
    const changed = [["scheme", this.scheme?.get()], ...this.traits()].filter(([, value]) => value);
    const isShort = (entry) =>
      String(new URLSearchParams([entry])).length < Address.LONGEST / (changed.length + 1);
    const short = new URLSearchParams(changed.filter(isShort));
    const viewer = Object.fromEntries(changed.filter((entry) => !isShort(entry)));
    const kept = [this.section, short.toString()].filter(Boolean).join("&");
    const address = kept ? `#${kept}` : location.pathname + location.search;
    try {
      history.replaceState({ viewer }, "", address);
      this.known = location.hash;
    } catch {
      // Some frames do not allow changes of the address.
    }
  }
}
