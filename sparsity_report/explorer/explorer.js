// The chart of the explorer: one view at a time, data swapped by name, and what is brushed and
// clicked goes to the kernel. `vegaEmbed` stands before this code.
const OPTIONS = { renderer: "svg", actions: false, ast: true };

async function render({ model, el }) {
  let view = null;
  let turn = 0;
  let shown = {};
  let brushed = "{}";

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

  async function draw() {
    const mine = ++turn;
    const spec = structuredClone(model.get("spec"));
    const data = model.get("data");
    const place = document.createElement("div");
    const made = await vegaEmbed(place, { ...spec, datasets: structuredClone(data) }, OPTIONS);
    if (mine !== turn) return made.finalize();
    view?.finalize();
    view = made.view;
    shown = data;
    brushed = "{}";
    view.addSignalListener("brush", brush);
    view.addEventListener("click", (event, item) => {
      const { kind, id } = item?.datum ?? {};
      if (kind) model.send({ [kind]: id, more: event.shiftKey || event.metaKey || event.ctrlKey });
    });
    el.replaceChildren(place);
    el.dataset.width = spec.usermeta.width;
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
  model.on("change:data", swap);
  await draw();
  return () => {
    model.off("change:spec", draw);
    model.off("change:data", swap);
    view?.finalize();
  };
}

export default { render };
