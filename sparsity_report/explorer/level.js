// Sparsity slider of the explorer: a range with a scale below, and a field that accepts 45, 45 %,
// 45% and 0.45. The kernel sends the levels and their texts.
function render({ model, el }) {
  const made = (tag, style, attributes = {}) => {
    const one = document.createElement(tag);
    one.className = style;
    for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
    return one;
  };
  const range = made("input", "sx-range", { type: "range", min: 0, step: 1 });
  const field = made("input", "sx-readout", { type: "text", inputmode: "decimal", spellcheck: "false" });
  const name = made("span", "sx-name", { "aria-hidden": "true" });
  const rail = made("div", "sx-rail");
  const scale = made("div", "sx-scale", { "aria-hidden": "true" });
  rail.append(range, scale);
  el.classList.add("sx-slide");
  el.append(name, rail, field);

  const levels = () => model.get("levels");
  const nearest = (value) => levels().reduce(
    (best, level, place) => Math.abs(level - value) < Math.abs(levels()[best] - value) ? place : best, 0);

  // A number below 1 without a percent sign is a fraction; every other number is a percentage.
  function read(text) {
    const found = text.trim().replace(",", ".").match(/^(\d*\.?\d+|\d+\.)\s*(%?)$/u);
    if (!found) return null;
    const number = Number(found[1]);
    const share = found[2] || number >= 1 ? number / 100 : number;
    return share <= 1 ? share : null;
  }

  function show() {
    const place = nearest(model.get("value"));
    const text = model.get("texts")[place] ?? "";
    range.max = Math.max(1, levels().length - 1);
    range.value = place;
    range.setAttribute("aria-label", model.get("name"));
    range.setAttribute("aria-valuetext", text);
    field.setAttribute("aria-label", model.get("field"));
    name.textContent = model.get("name");
    if (field.getRootNode().activeElement !== field) field.value = text;
    field.removeAttribute("aria-invalid");
    range.disabled = field.disabled = model.get("disabled");
    el.classList.toggle("is-level", model.get("live"));
  }

  function ticks() {
    const top = levels().at(-1) || 1;
    scale.replaceChildren(...model.get("ticks").map(([share, text, mark]) => {
      const tick = made(mark ? "b" : "span", "");
      tick.style.left = `${(100 * share) / top}%`;
      tick.textContent = text;
      return tick;
    }));
    show();
  }

  function choose(value) {
    model.set("value", value);
    model.save_changes();
    show();
  }

  function type() {
    const share = read(field.value);
    if (share === null) {
      field.setAttribute("aria-invalid", "true");
      return;
    }
    const level = levels()[nearest(share)];
    field.value = model.get("texts")[nearest(share)];
    if (level !== model.get("value") || !model.get("live")) {
      // Entering the same level again shows it in place of a variant.
      if (level === model.get("value")) model.send({ level });
      choose(level);
    }
  }

  range.addEventListener("input", () => choose(levels()[Number(range.value)]));
  field.addEventListener("change", type);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") field.value = model.get("texts")[nearest(model.get("value"))];
  });
  field.addEventListener("blur", show);
  for (const trait of ["value", "texts", "name", "field", "disabled", "live"]) model.on(`change:${trait}`, show);
  for (const trait of ["levels", "ticks"]) model.on(`change:${trait}`, ticks);
  ticks();
  return () => {
    for (const trait of ["value", "texts", "name", "field", "disabled", "live"]) model.off(`change:${trait}`, show);
    for (const trait of ["levels", "ticks"]) model.off(`change:${trait}`, ticks);
  };
}

export default { render };
