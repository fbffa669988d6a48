// The line below the table: undo, copies, and files of the table and the map.
import { code, command } from "./copied_code.js";
import { download, fileName, make, menu } from "./elements.js";
import { colorsOf, file } from "./pictures.js";
import { asText, columns } from "./table.js";

// Forms of a copy, and pictures with their widths in points: a column and a page.
const COPIES = ["table", "python", "command"];
const PICTURES = { svg: "SVG", png: "PNG" };
const SIZES = { column: 244, page: 505 };

export function button(text, name, act, reason = "") {
  return make("button", { type: "button", className: `sv-${name}`, textContent: text.say(name),
    title: reason || text.say(`${name}_tip`), disabled: Boolean(reason), on: { click: act } });
}

export class Tools {
  constructor({ figures, store, controls, map, panel, table }) {
    this.figures = figures;
    this.store = store;
    this.controls = controls;
    this.map = map;
    this.panel = panel;
    this.table = table;
    const { text } = figures;
    this.notice = make("div", { className: "sv-notice", role: "status" });
    this.rowCount = make("span", { className: "sv-rowcount" });
    this.undo = button(text, "undo", () => store.go(-1));
    this.redo = button(text, "redo", () => store.go(1));
    this.reset = button(text, "reset", () => store.reset());
    const forms = figures.isPair ? COPIES.slice(0, 1) : COPIES;
    const form = menu("sv-form", text.say("copy_form"),
      forms.map((key) => [key, text.say(`copy_${key}`)]));
    const pictures = Object.keys(SIZES).flatMap((size) =>
      Object.entries(PICTURES).map((
        [kind, label],
      ) => [`${kind} ${size}`, text.say(`picture_${size}`, { kind: label })])
    );
    const kind = menu("sv-kind", text.say("picture_form"), pictures);
    this.box = make("div", { className: "sv-tools" }, this.rowCount,
      figures.isPair ? null : controls.scope, this.undo, this.redo, this.reset, form,
      button(text, "copy", () => this.copy(form.value)), button(text, "csv", () => this.csv()),
      kind, button(text, "save", () => this.save(kind.value)));
  }

  update(state) {
    const { figures: { text }, store, table } = this;
    const all = this.figures.scope(state.modules, state).length;
    this.rowCount.textContent = text.say("rows", { shown: text.count(table.rows.length),
      all: text.count(all) });
    this.undo.disabled = store.at === 0 && state === store.steps[0];
    this.redo.disabled = store.at + 1 >= store.steps.length;
    this.reset.disabled = state === store.first;
  }

  tell(content) {
    this.notice.replaceChildren(content);
  }

  copy(form) {
    const { figures, store: { state } } = this;
    if (form === "python") return this.clip(code(figures, this.store, state));
    if (form === "table") return this.clip(asText(columns(figures, state), this.table.rows, "\t"));
    const line = command(figures, state);
    return line ? this.clip(line) : this.tell(figures.text.say("command_unsupported"));
  }

  // Copy a text; where the page may not, show it for copying by hand.
  async clip(content) {
    const { text } = this.figures;
    try {
      await navigator.clipboard.writeText(content);
      this.tell(text.say("copied"));
    } catch {
      const ariaLabel = text.say("by_hand");
      const place = make("textarea", { readOnly: true, value: content, ariaLabel });
      this.notice.replaceChildren(ariaLabel, place);
      place.select();
    }
  }

  download(blob, end) {
    const { figures: { data }, store: { state } } = this;
    const name = fileName(`${data.title} ${this.controls.shown(state)} ${state.metric}`);
    download(blob, `${name}.${end}`);
  }

  csv() {
    const text = asText(columns(this.figures, this.store.state), this.table.rows, ",");
    this.download(new Blob([text], { type: "text/csv" }), "csv");
  }

  // Save the map with the picture beside it, in the colors of the page.
  async save(form) {
    const { figures, store: { state } } = this;
    const [kind, size] = form.split(" ");
    const metric = figures.metric(state);
    const shown = this.controls.shown(state);
    const title = figures.text.say("picture_title", { metric: metric.label, shown });
    const top = this.map.picture(state, SIZES[size], title);
    const below = this.panel.picture(state, SIZES[size]);
    const shapes = (below?.shapes ?? []).map((shape) => lowered(shape, top.height + 4));
    const height = top.height + (below ? below.height + 8 : 0);
    const picture = { ...top, shapes: [...top.shapes, ...shapes], height };
    this.download(await file(picture, kind, colorsOf(this.box)), kind);
  }
}

// Return a shape moved down.
function lowered(shape, down) {
  const next = { ...shape };
  for (const key of ["y", "y1", "y2"]) if (key in shape) next[key] = shape[key] + down;
  if (shape.points) next.points = shape.points.map(([x, y]) => [x, y + down]);
  return next;
}
