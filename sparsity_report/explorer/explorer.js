// The chart of the explorer: one view at a time, data swapped by name; what is brushed, clicked or
// chosen by keys goes to the kernel. `vegaEmbed` stands before this code.
const OPTIONS = { renderer: "svg", actions: false, ast: true };
const more = (event) => event.shiftKey || event.metaKey || event.ctrlKey;

// What a name beside a plot or in a legend stands for, as a message.
function named(item) {
  const role = item?.mark?.role ?? "";
  const value = item?.datum?.value;
  let panel = "";
  let axis = null;
  for (let group = item?.mark?.group; group; group = group.mark?.group) {
    if (axis === null && group.orient) axis = group.orient;
    panel ||= /^(cells|bars)/.exec(group.mark?.name ?? "")?.[1] ?? "";
  }
  if (role.startsWith("legend") && panel === "bars") return { variant: value };
  if (role !== "axis-label" || typeof value !== "string") return null;
  if (panel === "bars") return axis === "left" ? { bar: value } : null;
  return panel === "cells" ? { [axis === "left" ? "projection" : "block"]: value } : null;
}

async function render({ model, el }) {
  let view = null;
  let turn = 0;
  let shown = {};
  let brushed = "{}";
  let drawn = "";

  const told = () => JSON.stringify(view.signal("brush") ?? {});
  let rest;
  const brush = () => {
    clearTimeout(rest);
    rest = setTimeout(() => {
      if (view === null || told() === brushed) return;
      brushed = told();
      model.send({ brush: JSON.parse(brushed) });
    }, 40);
  };

  // Each view of an explorer is drawn for its own width.
  function spec() {
    const width = Number(el.closest(".sparsity-explorer")?.dataset.width);
    const fits = (one) => one.usermeta.width === width;
    return model.get("further").find(fits) ?? model.get("spec");
  }

  // The map by keys: arrows go from cell to cell, and what is there is said.
  const keys = document.createElement("div");
  Object.assign(keys, { className: "sx-keys", tabIndex: 0 });
  keys.setAttribute("role", "application");
  const hint = () => keys.setAttribute("aria-label", model.get("hint"));
  hint();
  const said = document.createElement("span");
  said.setAttribute("aria-live", "polite");
  keys.append(said);
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  let at = null;
  const cells = () => shown.cells ?? [];
  function point(cell) {
    at = cell;
    view?.data("pointed", cell ? [{ block: cell.block, projection: cell.projection }] : []).runAsync();
    said.textContent = cell ? `${cell.tip}: ${cell.label}` : "";
  }
  function step([right, down]) {
    const [blocks, projections] = model.get("axes");
    let [x, y] = [blocks.indexOf(at.block), projections.indexOf(at.projection)];
    for (;;) {
      [x, y] = [x + right, y + down];
      if (!(x in blocks) || !(y in projections)) return;
      const next = cells().find((c) => c.block === blocks[x] && c.projection === projections[y]);
      if (next) return point(next);
    }
  }
  keys.addEventListener("focus", () => point(cells().find((c) => c.id === at?.id) ?? cells()[0] ?? null));
  keys.addEventListener("blur", () => { view?.data("pointed", []).runAsync(); });
  keys.addEventListener("keydown", (event) => {
    if (at === null) return;
    if (event.key in STEPS) step(STEPS[event.key]);
    else if (["Enter", " "].includes(event.key)) model.send({ cell: at.id, more: more(event) });
    else return;
    event.preventDefault();
  });

  async function draw() {
    const chosen = spec();
    const text = JSON.stringify(chosen);
    if (text === drawn) return;
    drawn = text;
    const mine = ++turn;
    const data = model.get("data");
    const place = document.createElement("div");
    const datasets = { ...chosen.datasets, ...structuredClone(data), pointed: [] };
    const made = await vegaEmbed(place, { ...structuredClone(chosen), datasets }, OPTIONS);
    if (mine !== turn) return made.finalize();
    view?.finalize();
    view = made.view;
    shown = data;
    brushed = "{}";
    if (chosen.params?.length) view.addSignalListener("brush", brush);
    view.addEventListener("click", (event, item) => {
      const { kind, id } = item?.datum ?? {};
      if (kind && kind !== "pull") model.send({ [kind]: id, more: more(event) });
    });
    // The curve is pulled to a level, which is sent as fast as the kernel takes it.
    let pulled = null;
    const pull = (event, item) => {
      if (item?.datum?.kind !== "pull" || item.datum.id === pulled) return;
      pulled = item.datum.id;
      model.set("pulled", [pulled, (model.get("pulled")[1] ?? 0) + 1]);
      model.save_changes();
    };
    view.addEventListener("pointerdown", (event, item) => {
      pulled = null;
      if (event.button === 0) pull(event, item);
    });
    view.addEventListener("pointermove", (event, item) => { if (event.buttons & 1 && pulled !== null) pull(event, item); });
    // Names beside plots take no events of Vega's.
    place.addEventListener("click", (event) => {
      const meant = named(event.target.__data__);
      if (meant) model.send({ ...meant, more: more(event) });
    });
    el.replaceChildren(keys, place);
    el.dataset.width = chosen.usermeta.width;
    if (model.get("data") !== data) await swap();
  }

  async function swap() {
    if (view === null) return;
    const data = model.get("data");
    for (const [name, rows] of Object.entries(data)) {
      if (JSON.stringify(rows) !== JSON.stringify(shown[name])) {
        view.data(name, structuredClone(rows));
      }
    }
    shown = data;
    if (!model.get("brushed") && brushed !== "{}") {
      brushed = "{}";
      view.data("brush_store", []);
    }
    await view.runAsync();
  }

  model.on("change:spec", draw);
  model.on("change:further", draw);
  model.on("change:data", swap);
  model.on("change:hint", hint);
  await draw();
  return () => {
    model.off("change:spec", draw);
    model.off("change:further", draw);
    model.off("change:data", swap);
    model.off("change:hint", hint);
    view?.finalize();
  };
}

export default { render };
