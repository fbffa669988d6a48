// The lines around the table: figures of the selected layers; undo, copies, and files to save.
import { code, command } from "./copied_code.js";
import { choices, copyText, download, fileName, make, menu, raster, show } from "./elements.js";
import { clip } from "./numbers.js";
import { small, svgText } from "./pictures.js";
import { savedPage } from "./saved_page.js";
import { asText, sorted, uncertainties } from "./table.js";

// Forms of a copy, and pictures with their widths in points: a column and a page.
const COPIES = ["table", "python", "command"];
const SIZES = { column: 244, page: 505 };
// Pixels of a PNG per point.
const SCALE = 3;
// Files by what they show.
const FILES = { picture: ["svg_column", "svg_page", "png_column", "png_page"], table: ["csv"],
  view: ["page"], report: ["html", "pdf", "zip"] };
// Most letters of a part of a file name.
const LETTERS = 60;

export function button(text, name, act, reason = "") {
  const textContent = reason ? `${text.say(name)} (${reason})` : text.say(name);
  return make("button", { type: "button", className: `sv-${name}`, textContent,
    title: reason || text.say(`${name}_tip`), disabled: Boolean(reason), on: { click: act } });
}

export class Tools {
  constructor(viewer) {
    const { figures, store, controls, text } = viewer;
    this.viewer = viewer;
    // Notices by place, and the controls that each is about: all of them, or those with a name.
    this.notices = { page: make("div"), kernel: make("div") };
    this.about = {};
    this.notice = make("div", { className: "sv-notice", role: "status" },
      ...Object.values(this.notices));
    this.rowCount = make("span", { className: "sv-rowcount", role: "status" });
    this.undo = button(text, "undo", () => store.go(-1));
    this.redo = button(text, "redo", () => store.go(1));
    const forms = figures.isPair ? COPIES.slice(0, 1) : COPIES;
    const form = menu("sv-form", text.say("copy_form"),
      forms.map((key) => [key, text.say(`copy_${key}`)]));
    const reasons = { view: !figures.data.source && text.say("needs_source"),
      report: !viewer.kernel && text.say("needs_kernel") };
    const groups = Object.entries(FILES).map(([group, keys]) => {
      const options = keys.map((key) => [key, text.say(`file_${key}`), reasons[group]]);
      return [text.say(`files_${group}`), options];
    });
    const files = choices("sv-files", text.say("files"), text.say("files_tip"), groups,
      (choice) => this.save(choice));
    this.sum = make("span", { className: "sv-sum" });
    const lack = !viewer.kernel ? "needs_kernel" : figures.data.hasWeights ? "" : "needs_weights";
    this.add = button(text, "add", () => viewer.ask({ type: "add" }), lack && text.say(lack));
    this.clear = button(text, "clear", () => {
      store.set({ selection: [] });
      viewer.table.box.focus({ preventScroll: true });
    });
    this.selection = make("div", { className: "sv-selection" }, this.sum,
      figures.isPair ? null : this.add, this.clear);
    this.box = make("div", { className: "sv-tools" }, this.rowCount,
      figures.isPair ? null : controls.scope, this.undo, this.redo, form,
      button(text, "copy", () => this.copy(form.value)), files);
  }

  update(state) {
    const { figures, store, table, text } = this.viewer;
    const all = figures.scope(state.modules, state).length;
    show(this.rowCount,
      text.say("rows", { shown: text.count(table.rows.length), all: text.count(all) }));
    this.undo.disabled = !store.hasStep(-1);
    this.redo.disabled = !store.hasStep(1);
    const { selection, selection: { length } } = state;
    this.clear.hidden = !length;
    this.add.hidden = !figures.isLevel(state);
    const side = figures.compares(state) ? text.say("side_a") : "";
    const key = length ? (figures.isPair ? "selected" : "selected_sums") : "select_hint";
    const sums = length && !figures.isPair ? figures.written(state, selection) : {};
    show(this.sum, text.say(key, { n: text.count(length), side, ...sums }));
  }

  /**
   * Show a notice until a control that it is about changes.
   * @param {string | Node} content
   * @param {string[] | null} about Names of the controls; without them, any.
   * @param {"page" | "kernel"} place
   */
  tell(content, about = null, place = "page") {
    // An answer of the kernel gives way to a later notice.
    if (!this.about.kernel) this.notices.kernel.replaceChildren();
    this.about[place] = about;
    this.notices[place].replaceChildren(content);
  }

  forget(state, before) {
    for (const [place, box] of Object.entries(this.notices)) {
      const names = this.about[place] ?? Object.keys(state);
      if (names.some((name) => state[name] !== before[name])) box.replaceChildren();
    }
  }

  copy(form) {
    const { figures, store, store: { state }, text } = this.viewer;
    if (form === "python") return this.clip(code(figures, store, state));
    if (form === "table") return this.clip(...this.rows("\t"));
    const line = command(figures, state);
    return line ? this.clip(line) : this.tell(text.say("command_unsupported"));
  }

  // Return the selected rows, or else those in view, as text, and a notice that counts them.
  rows(separator) {
    const { figures, table, text } = this.viewer;
    table.arrange();
    const rows = sorted(figures, table.state, figures.inView(table.state));
    const notice = text.say("copied_rows", { n: text.count(rows.length) });
    const columns = [...table.columns, ...uncertainties(figures, table.state)];
    return [asText(columns, rows, separator), notice];
  }

  async clip(content, notice = this.viewer.text.say("copied")) {
    const byHand = this.viewer.text.say("by_hand");
    this.tell("");
    if (await copyText(content, byHand, this.notices.page)) this.tell(notice);
    else this.notices.page.prepend(byHand);
  }

  // Save a picture, the table, the view or a report as a file.
  async save(choice) {
    const { controls, data, store: { state }, text } = this.viewer;
    const [kind, size] = choice.split("_");
    const isReport = FILES.report.includes(kind);
    const content = isReport
      ? (await this.viewer.ask({ type: "report", kind })).data
      : await this.content(kind, size);
    if (!content) return;
    const shown = isReport ? text.say("files_report") : `${controls.shown(state)} ${state.metric}`;
    const parts = [data.title, shown].map((part) => fileName(part).slice(0, LETTERS));
    const name = `${[...parts, size].filter(Boolean).join("-")}.${kind === "page" ? "html" : kind}`;
    download(new Blob([content]), name);
    this.tell(text.say("downloaded", { name }));
  }

  content(kind, size = "page") {
    const { store: { state }, table } = this.viewer;
    if (kind === "csv") return this.rows(",")[0];
    table.arrange();
    // A page of LaTeX or a text editor shows an SVG file in the size of its points.
    const unit = kind === "svg" ? "pt" : "";
    const drawn = svgText(this.picture(state, SIZES[size]), this.box, unit);
    if (kind === "page") return savedPage(this.viewer, drawn);
    return kind === "svg" ? drawn : raster(drawn, SCALE);
  }

  // Return the map with the picture beside it, below one another.
  picture(state, width) {
    const { controls, figures, map, panel, text } = this.viewer;
    const key = figures.isPair ? "picture_of_pair" : "picture_title";
    const title = text.say(key, { title: figures.data.title, metric: figures.metric(state).label,
      shown: controls.shown(state) });
    const { height, parts, ...top } = map.picture(state, width, title);
    const below = panel.picture(state, width);
    if (!below) return { ...top, height, parts };
    const name = state.panel === "layer" ? clip(figures.short(state.detail), width / 6) : "";
    const heading = { width, height: 20, shapes: [small(4, 12, name)] };
    const start = height + (name ? 20 : 4);
    return { ...top, parts: [...parts, [heading, 0, height], [below, 0, start]],
      height: start + below.height + 4 };
  }
}
