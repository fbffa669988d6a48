// Explorer for notebooks that support anywidget but not ipywidgets, such as marimo: native elements with
// the class names of ipywidgets, each bound to the model of its widget.
const made = (tag, style, ...parts) => {
  const one = document.createElement(tag);
  one.className = style;
  one.append(...parts);
  return one;
};
const reference = (ref) => `anywidget:${ref.slice("IPY_MODEL_".length)}`;
const focused = (one) => one.getRootNode().activeElement === one;

// Show the values of traits, now and after every change.
function follow({ model, signal }, traits, show) {
  for (const trait of traits) {
    model.on(`change:${trait}`, show);
    signal.addEventListener("abort", () => model.off(`change:${trait}`, show));
  }
  show();
}

function tell(model, trait, value) {
  model.set(trait, value);
  model.save_changes();
}

let controls = 0;
function labeled(widget, style, control) {
  const { model } = widget;
  control.id = `sx-control-${++controls}`;
  const label = made("label", "widget-label");
  label.htmlFor = control.id;
  follow(widget, ["description", "disabled", "tooltip"], () => {
    label.textContent = model.get("description");
    control.disabled = model.get("disabled");
    control.title = model.get("tooltip") ?? "";
  });
  return made("div", `widget-inline-hbox ${style}`, label, control);
}

function dropdown(widget) {
  const { model } = widget;
  const select = made("select", "");
  follow(widget, ["_options_labels", "index"], () => {
    const texts = model.get("_options_labels");
    if (texts.join("\n") !== [...select.options].map((one) => one.text).join("\n")) {
      select.replaceChildren(...texts.map((text) => made("option", "", text)));
    }
    select.selectedIndex = model.get("index") ?? -1;
  });
  select.addEventListener("change", () => tell(model, "index", select.selectedIndex));
  return labeled(widget, "widget-dropdown", select);
}

function text(widget) {
  const { model } = widget;
  const field = made("input", "");
  field.type = "text";
  follow(widget, ["value", "placeholder"], () => {
    field.placeholder = model.get("placeholder");
    // Setting an equal value would move the caret.
    if (field.value !== model.get("value")) field.value = model.get("value");
  });
  field.addEventListener("input", () => {
    if (model.get("continuous_update")) tell(model, "value", field.value);
  });
  field.addEventListener("change", () => {
    if (field.value !== model.get("value")) tell(model, "value", field.value);
  });
  return labeled(widget, "widget-text", field);
}

function checkbox(widget) {
  const { model } = widget;
  const check = made("input", "");
  check.type = "checkbox";
  const words = made("span", "");
  follow(widget, ["value", "description", "disabled", "tooltip"], () => {
    check.checked = model.get("value");
    check.disabled = model.get("disabled");
    words.textContent = model.get("description");
    words.title = model.get("tooltip") ?? "";
  });
  check.addEventListener("change", () => tell(model, "value", check.checked));
  return made("div", "widget-inline-hbox widget-checkbox", made("label", "widget-label-basic", check, words));
}

function button(widget) {
  const { model } = widget;
  const one = made("button", "jupyter-button widget-button");
  let held = false;
  follow(widget, ["description", "tooltip", "disabled"], () => {
    one.textContent = model.get("description");
    one.title = model.get("tooltip") ?? "";
    held ||= focused(one);
    one.disabled = model.get("disabled");
    // A disabled button loses the keyboard focus. Restore it unless another element has it.
    if (!one.disabled && held && [null, document.body].includes(one.getRootNode().activeElement)) one.focus();
    held &&= one.disabled;
  });
  one.addEventListener("click", () => model.send({ event: "click" }));
  return one;
}

function html(widget) {
  const content = made("div", "widget-html-content");
  follow(widget, ["value"], () => { content.innerHTML = widget.model.get("value"); });
  return made("div", "widget-inline-hbox widget-html", content);
}

function box(widget) {
  const { model, host, signal } = widget;
  const place = made("div", "widget-container widget-box");
  const kept = new Map();
  widget.attached = () => follow(widget, ["children"], () => {
    const refs = model.get("children");
    for (const [ref, child] of kept) {
      if (refs.includes(ref)) continue;
      child.end.abort();
      kept.delete(ref);
    }
    const fresh = refs.filter((ref) => !kept.has(ref));
    for (const ref of fresh) kept.set(ref, { end: new AbortController(), element: made("div", "") });
    place.replaceChildren(...refs.map((ref) => kept.get(ref).element));
    for (const ref of fresh) draw(ref, kept.get(ref), host, signal);
  });
  return place;
}

const column = (widget) => {
  const place = box(widget);
  place.classList.add("widget-vbox");
  return place;
};

// Draw an anywidget after its element is in the page, because its style is added there.
function any(widget) {
  const place = made("div", "");
  widget.attached = async () => {
    const drawn = await widget.host.getWidget(widget.ref);
    await drawn.render({ el: place, signal: widget.signal });
  };
  return place;
}

const ELEMENTS = {
  AnyModel: any,
  BoxModel: box,
  ButtonModel: button,
  CheckboxModel: checkbox,
  DropdownModel: dropdown,
  HTMLModel: html,
  TextModel: text,
  VBoxModel: column,
};

function stand(widget, spot) {
  const kind = widget.model.get("_model_name");
  const make = ELEMENTS[kind];
  if (make === undefined) throw new Error(`The explorer has no element for ${kind}.`);
  const element = make(widget);
  element.classList.add("jupyter-widgets");
  let styles = [];
  follow(widget, ["_dom_classes"], () => {
    element.classList.remove(...styles);
    styles = widget.model.get("_dom_classes");
    element.classList.add(...styles);
  });
  spot.replaceWith(element);
  return element;
}

async function draw(ref, child, host, outer) {
  const { signal } = child.end;
  outer.addEventListener("abort", () => child.end.abort(), { signal });
  try {
    const widget = { ref: reference(ref), host, signal, model: await host.getModel(reference(ref)) };
    if (signal.aborted) return;
    child.element = stand(widget, child.element);
    await widget.attached?.();
  } catch (error) {
    child.element.textContent = error.message;
    throw error;
  }
}

function render({ model, el, host, signal }) {
  if (host === undefined) throw new Error("explorer: this version of marimo cannot draw nested anywidgets; update marimo");
  const lost = made("p", "sx-lost", model.get("lost"));
  lost.hidden = true;
  const late = setTimeout(() => { lost.hidden = false; }, 6000);
  const spot = made("div", "");
  el.append(lost, spot);
  const widget = { model, host, signal };
  stand(widget, spot);
  widget.attached();
  // Report a change in the kernel as a change of the cell's value, so that dependent cells run.
  let rest;
  const changed = ({ changed: what }) => {
    if (!what) return;
    clearTimeout(rest);
    rest = setTimeout(() => tell(model, "changes_seen", (model.get("changes_seen") ?? 0) + 1), 150);
  };
  model.on("msg:custom", changed);
  return () => {
    clearTimeout(late);
    clearTimeout(rest);
    model.off("msg:custom", changed);
  };
}

export default { render };
