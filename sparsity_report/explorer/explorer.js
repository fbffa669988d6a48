// Chart of the explorer: one Vega view at a time, with data replaced by name. Brushing, clicks and keys
// go to the kernel. `vegaEmbed` is defined before this code.
const OPTIONS = { renderer: "svg", actions: false, ast: true };
const more = (event) => event.shiftKey || event.metaKey || event.ctrlKey;

// Return the message for a click on an axis label or a legend entry.
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
  let settled = 0;
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

  // Return the specification for the width of this view.
  function spec() {
    const width = Number(el.closest(".sparsity-explorer")?.dataset.width);
    const fits = (one) => one.usermeta.width === width;
    return model.get("further").find(fits) ?? model.get("spec");
  }

  // Keyboard access to the map: arrows move between cells, which are announced to screen readers.
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

  // Keyboard access to the curve: stops are levels and measured variants in order of bytes.
  const track = document.createElement("div");
  Object.assign(track, { className: "sx-track", hidden: true });
  track.setAttribute("role", "slider");
  let [pulled, stops] = [null, []];
  const middle = (stop) => stop.from + stop.to;
  function stand() {
    const [level] = shown.level ?? [];
    track.hidden = !shown.points;
    track.tabIndex = track.hidden ? -1 : 0;
    if (track.hidden) return;
    stops = [...(shown.pulls ?? [])].sort((a, b) => middle(a) - middle(b));
    const at = stops.findIndex((stop) => stop.id === level?.at);
    track.dataset.at = at < 0 ? stops.findLastIndex((stop) => middle(stop) < 2 * (level?.bytes ?? 0)) : at;
    track.setAttribute("aria-label", model.get("along"));
    track.setAttribute("aria-valuemin", 0);
    track.setAttribute("aria-valuemax", Math.max(0, stops.length - 1));
    track.setAttribute("aria-valuenow", Math.max(0, track.dataset.at));
    track.setAttribute("aria-valuetext", level?.tip ?? "");
  }
  function pull(id) {
    if (id === pulled) return;
    pulled = id;
    model.set("pulled", [id, (model.get("pulled")[1] ?? 0) + 1]);
    model.save_changes();
  }
  track.addEventListener("keydown", (event) => {
    const at = Number(track.dataset.at);
    const measured = (stop) => typeof stop.id === "string";
    const to = {
      ArrowLeft: () => at - 1,
      ArrowDown: () => at - 1,
      ArrowRight: () => at + 1,
      ArrowUp: () => at + 1,
      Home: () => 0,
      End: () => stops.length - 1,
      PageDown: () => stops.findLastIndex((stop, place) => place < at && measured(stop)),
      PageUp: () => stops.findIndex((stop, place) => place > at && measured(stop)),
    }[event.key]?.();
    if (to === undefined) return;
    event.preventDefault();
    pulled = null;
    if (stops[to]) pull(stops[to].id);
  });

  function describe() {
    const text = model.get("described");
    if (text) el.querySelector("[role=graphics-document]")?.setAttribute("aria-label", text);
  }

  async function draw() {
    const chosen = spec();
    const text = JSON.stringify(chosen);
    if (text === drawn) return swap();
    drawn = text;
    const mine = ++turn;
    const data = model.get("data");
    const place = document.createElement("div");
    const datasets = { ...chosen.datasets, ...structuredClone(data), pointed: [] };
    const made = await vegaEmbed(place, { ...structuredClone(chosen), datasets }, OPTIONS);
    if (mine !== turn) return made.finalize();
    // Marks have accessible names. Their containers may be empty, so they lose the role of an image.
    for (const one of place.querySelectorAll("[aria-roledescription$='mark container']:not([aria-label])")) {
      one.removeAttribute("role");
      one.removeAttribute("aria-roledescription");
    }
    view?.finalize();
    view = made.view;
    settled = mine;
    shown = data;
    brushed = "{}";
    if (chosen.params?.length) view.addSignalListener("brush", brush);
    view.addEventListener("click", (event, item) => {
      const { kind, id } = item?.datum ?? {};
      if (kind && kind !== "pull") model.send({ [kind]: id, more: more(event) });
    });
    // Dragging pulls the curve to the pointer. Positions are sent as fast as the kernel accepts them.
    const drag = (item) => { if (item?.datum?.kind === "pull") pull(item.datum.id); };
    view.addEventListener("pointerdown", (event, item) => {
      pulled = null;
      if (event.button === 0) drag(item);
    });
    view.addEventListener("pointermove", (event, item) => { if (event.buttons & 1 && pulled !== null) drag(item); });
    // Vega sends no events for axis labels and legend entries.
    place.addEventListener("click", (event) => {
      const meant = named(event.target.__data__);
      if (meant) model.send({ ...meant, more: more(event) });
    });
    // Keep the elements that hold the keyboard focus; a replacement would lose it.
    if (keys.parentNode === el) el.lastElementChild.replaceWith(place);
    else el.replaceChildren(keys, track, place);
    stand();
    describe();
    el.dataset.width = chosen.usermeta.width;
    if (model.get("data") !== data) await swap();
  }

  async function swap() {
    // A chart that is being drawn reads the newest data when it is ready.
    if (view === null || settled !== turn) return;
    const data = model.get("data");
    for (const [name, rows] of Object.entries(data)) {
      // Data of another curve arrive with its specification.
      if (!(name in shown)) continue;
      if (JSON.stringify(rows) !== JSON.stringify(shown[name])) {
        view.data(name, structuredClone(rows));
      }
    }
    shown = data;
    stand();
    if (!model.get("brushed") && brushed !== "{}") {
      brushed = "{}";
      view.data("brush_store", []);
    }
    await view.runAsync();
  }

  // Some hosts report a trait before they set the next, which would mix old data and a new frame.
  let due = false;
  function changed() {
    if (due) return;
    due = true;
    queueMicrotask(() => {
      due = false;
      draw();
    });
  }
  const traits = ["spec", "further", "data"];
  for (const trait of traits) model.on(`change:${trait}`, changed);
  model.on("change:hint", hint);
  model.on("change:described", describe);
  await draw();
  return () => {
    for (const trait of traits) model.off(`change:${trait}`, changed);
    model.off("change:hint", hint);
    model.off("change:described", describe);
    view?.finalize();
  };
}

export default { render };
