{# Settings of the reader, stored after the # of the address: a section, then the changed settings. Invalid parts are ignored. #}
class Address {
  static LONGEST = 4000;
  static WAIT = 250;

  constructor(tables, scheme) {
    this.settings = new Map();
    if (scheme) this.settings.set("scheme", scheme);
    tables.forEach((table, place) => {
      for (const [name, setting] of Object.entries(tableSettings(table))) {
        this.settings.set(name + (place + 1), setting);
      }
    });
    this.section = "";
    this.restore();
    for (const event of ["input", "click", "toggle"]) {
      document.addEventListener(event, () => this.later(), { capture: true });
    }
    addEventListener("hashchange", () => {
      this.restore();
      this.later();
    });
  }

  restore() {
    const text = location.hash.slice(1);
    if (text.length > Address.LONGEST) return;
    const given = [...new URLSearchParams(text)];
    const [first, value] = given[0] ?? ["", ""];
    const section = value === "" && !this.settings.has(first) && document.getElementById(first);
    this.section = section ? first : "";
    for (const [name, told] of given) this.settings.get(name)?.set(told);
    if (section && given.length > 1) section.scrollIntoView();
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.write(), Address.WAIT);
  }

  write() {
    const settings = [...this.settings].map(([name, { get }]) => [name, get()]);
    const changed = settings.filter(([, value]) => value);
    const parts = [this.section, new URLSearchParams(changed).toString()].filter(Boolean);
    const kept = parts.length ? `#${parts.join("&")}` : "";
    if (kept === location.hash) return;
    try {
      history.replaceState(null, "", kept || location.pathname + location.search);
    } catch {
      // Some frames do not allow changes of the address.
    }
  }
}

/* State of a table: open or closed, sorted column (negative if descending), and search text. */
function tableSettings(table) {
  const details = table.body.closest("details");
  const open = details && {
    get: () => (details.open ? "yes" : null),
    set: (told) => {
      if (told === "yes") details.open = true;
    },
  };
  const sort = {
    get: () => table.sorted,
    set: (told) => {
      const [, down, column] = /^(-?)([1-9]\d?)$/.exec(told) ?? [];
      if (column <= table.heads.length) table.sort(column - 1, down === "-");
    },
  };
  const search = {
    get: () => table.search.value,
    set: (told) => {
      table.search.value = told.slice(0, 200);
      table.filter();
    },
  };
  return { ...(open && { open }), sort, search };
}
