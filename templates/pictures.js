{# Download of a chart, redrawn on a white background. Small charts side by side become one picture with their color bar. #}
class Picture {
  static SCALE = 2;
  static COLUMNS = 3;

  /* Create a picture for every chart that is not part of another picture. */
  static all() {
    for (const row of document.querySelectorAll(".multiples")) new Picture(row);
    for (const figure of document.querySelectorAll("figure")) {
      if (figure.querySelector("script") && !figure.closest(".multiples, .colors")) new Picture(figure);
    }
  }

  constructor(place) {
    this.place = place;
    place.after(menu(words.save, { SVG: () => this.save("svg"), PNG: () => this.save("png") }));
  }

  /* Return the Vega-Lite specification of the picture. */
  spec() {
    const spec = (of) => ({ ...JSON.parse(of.querySelector("script").textContent), background: "white" });
    if (this.place.localName === "figure") return spec(this.place);
    const rows = [this.place.previousElementSibling, this.place].filter((part) => part.matches(".colors, .multiples"));
    return together(rows.flatMap((part) => [...part.querySelectorAll("figure")].map(spec)));
  }

  async save(kind) {
    const spec = this.spec();
    await document.fonts.ready;
    const options = { mode: "vega-lite", renderer: "none", ast: true, actions: false };
    const { view, finalize } = await vegaEmbed(make("div"), spec, options);
    const level = document.getElementById("level")?.value;
    const moved = spec.params?.some(({ name }) => name === "level");
    if (moved) await view.signal("level", Number(level)).runAsync();
    const name = fileName([document.querySelector("h1").textContent, this.title(spec), moved ? level : ""].join(" "));
    const blob = kind === "svg" ? await this.svg(view, spec.description) : await this.png(view);
    finalize();
    download(blob, `${name}.${kind}`);
  }

  title({ title, description }) {
    const over = this.place.localName === "figure" ? description : this.place.closest("section").querySelector("h2").firstChild.textContent;
    return [title?.text ?? title ?? over].flat().join(" ");
  }

  /* Return the SVG, with a description for screen readers. */
  async svg(view, description) {
    const drawn = new DOMParser().parseFromString(await view.toSVG(), "image/svg+xml");
    const title = drawn.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = description;
    drawn.documentElement.prepend(title);
    return new Blob([new XMLSerializer().serializeToString(drawn)], { type: "image/svg+xml" });
  }

  async png(view) {
    const canvas = await view.toCanvas(Picture.SCALE);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }
}

/* Join charts side by side in one specification; each keeps its data and its colors. */
function together(specs) {
  const [colors, ...maps] = specs.map(({ config, background, autosize, datasets, data, ...part }) =>
    ({ ...part, data: { values: datasets[data.name] } }));
  return {
    config: specs[0].config,
    background: "white",
    padding: 8,
    description: specs.map(({ description }) => description).join(" "),
    vconcat: [colors, { concat: maps, columns: Picture.COLUMNS }],
    resolve: { scale: { color: "independent" } },
  };
}

/* Return a safe part of a file name, as file_name of untrusted/display_text.py does. */
function fileName(text) {
  const letters = text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
  return letters.replace(/[^a-z0-9_]+/g, "-").slice(0, 100).replace(/^-+|-+$/g, "") || "unnamed";
}

/* Decompress a file that the page stores as gzip in base64. */
async function unpack(name) {
  const letters = atob(document.getElementById(name).textContent);
  const packed = new Blob([Uint8Array.from(letters, (letter) => letter.charCodeAt(0))]);
  const whole = packed.stream().pipeThrough(new DecompressionStream("gzip"));
  download(await new Response(whole).blob(), name);
}

function download(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/* Create a button that opens a menu of buttons. */
function menu(name, choices) {
  const open = make("button", { type: "button", "aria-expanded": "false" }, name);
  const more = make("span", { class: "choices" });
  more.hidden = true;
  for (const [choice, act] of Object.entries(choices)) {
    const button = make("button", { type: "button" }, choice);
    button.addEventListener("click", () => act(button));
    more.append(button);
  }
  open.addEventListener("click", () => {
    more.hidden = !more.hidden;
    open.setAttribute("aria-expanded", String(!more.hidden));
  });
  return make("div", { class: "tools" }, open, more);
}
