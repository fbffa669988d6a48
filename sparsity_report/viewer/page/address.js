// Settings of the reader: a section, the theme, and the state of the viewer. The short ones are
// stored after the # of the address, all of them for a reload. Invalid parts are ignored.
import { stored } from "../data.js";

const [LONGEST, WAIT] = [4000, 250];
const KEY = "sparsity-address";
const page = () => location.href.split("#")[0];

export class Address {
  constructor(scheme) {
    this.scheme = scheme;
    this.section = "";
    /** @type {any[]} */
    const [{ type }] = performance.getEntriesByType("navigation");
    // A reload begins before the last change is in the address.
    const [left, entries] = stored(KEY) ?? [];
    this.restore(type === "reload" && left === page() ? entries : null);
    for (const event of ["input", "click"]) {
      document.addEventListener(event, () => this.later(), { capture: true });
    }
    addEventListener("hashchange", () => {
      this.restore();
      this.later();
    });
    addEventListener("pagehide", () => this.isOpen && stored(KEY, [page(), this.entries()]));
    document.addEventListener("viewer-change", ({ target }) => this.follow(target));
    this.follow(document.querySelector(".sparsity-viewer"));
  }

  get isOpen() {
    return !document.querySelector(".sparsity-viewer:not(.sv-ready)");
  }

  // Keep the traits of the viewer, which opens later than the page.
  follow(root) {
    if (!root?.viewer) return;
    if (!this.root) {
      this.root = root;
      this.first = root.viewer.kept;
      this.restore(this.given);
    }
    this.later();
  }

  // Return the value of a trait from its text; undefined if there is none.
  read(name, text) {
    try {
      return typeof this.first[name] === "string" ? text : JSON.parse(text);
    } catch {
      return undefined;
    }
  }

  // Return the section, the theme, and the traits that differ from those of the first state.
  entries() {
    const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
    const traits = Object.entries(this.root?.viewer.kept ?? {}).map((
      [name, value],
    ) => [name, text(value)]).filter(([name, value]) => value !== text(this.first[name]));
    return [[this.section, ""],
      ...[["scheme", this.scheme?.get()], ...traits].filter(([, value]) => value)];
  }

  // Show settings, those of the address if there are no others.
  restore(given = null) {
    const { hash } = location;
    given ??= hash.length < LONGEST ? [...new URLSearchParams(hash.slice(1))] : [];
    this.known = hash;
    this.given = given;
    const [first, value] = given[0] ?? ["", ""];
    const section = value === "" && document.getElementById(first);
    this.section = section ? first : "";
    if (section && "open" in section) section.open = true;
    this.scheme?.set(new Map(given).get("scheme"));
    const traits = given.map(([name, text]) => [name, this.root && this.read(name, text)]);
    this.root?.viewer.recall(Object.fromEntries(traits));
    // Instantly: a link that moves with the scrolled page would lose the reader's click.
    if (section && given.length > 1) section.scrollIntoView({ behavior: "instant" });
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.write(), WAIT);
  }

  write() {
    if (!this.isOpen) return;
    if (location.hash !== this.known) this.restore(); // the event of a link comes later
    const [, ...entries] = this.entries();
    const isShort = (entry) =>
      String(new URLSearchParams([entry])).length < LONGEST / (entries.length + 1);
    const kept = [this.section, String(new URLSearchParams(entries.filter(isShort)))];
    const text = kept.filter(Boolean).join("&");
    try {
      history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
      this.known = location.hash;
    } catch {
      // Some frames do not allow changes of the address.
    }
  }
}
