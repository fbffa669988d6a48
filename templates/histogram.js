{# Histogram of the magnitudes of the selected layer, cut at the threshold of the slider. #}
{
const held = document.getElementById("histograms");
if (held) {
  const { layers, thresholds, told: texts, spec, said } = JSON.parse(held.textContent);
  const panel = document.querySelector(".histogram");
  const [choice, live, told] = ["select", ".live", ".note"].map((one) => panel.querySelector(one));
  const input = document.getElementById("level");
  const short = (number, digits = 3) => Number(number.toPrecision(digits)).toString().replace(".", said.decimal);
  const whole = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  let view = null;

  const rows = ({ edges, counts }) => {
    const density = counts.map((many, i) => many / (edges[i + 1] - edges[i]));
    const peak = Math.max(...density) || 1;
    return counts.map((many, i) => ({
      from: edges[i],
      to: edges[i + 1],
      height: density[i] / peak,
      label: whole(many),
      between: `${short(edges[i])}–${short(edges[i + 1])}`,
    }));
  };
  const cut = () => {
    const threshold = thresholds[input.value];
    // Between counted levels, the threshold is known to within a bucket of the histogram.
    told.textContent = texts[input.value];
    view?.signal("threshold", threshold ?? 0).runAsync();
  };
  const draw = () => {
    const layer = layers[choice.value];
    const width = Math.min(spec.width, panel.clientWidth);
    const domain = [0, layer.edges.at(-1)];
    const parts = spec.layer.map(({ encoding, ...part }) => {
      const x = { ...encoding.x, scale: { ...encoding.x.scale, domain } };
      return { ...part, encoding: { ...encoding, x } };
    });
    const options = { mode: "vega-lite", renderer: "svg", ast: true, actions: false };
    const datasets = { ...spec.datasets, bars: rows(layer) };
    vegaEmbed(live, { ...spec, layer: parts, width, datasets }, options).then((made) => {
      view = made.view;
      cut();
    }, console.error);
  };
  const choose = (module) => {
    const place = layers.findIndex(({ name }) => name === module);
    if (place < 0) return;
    choice.value = place;
    draw();
  };
  layers.forEach(({ name }, place) => choice.append(new Option(name, place)));
  choice.addEventListener("change", draw);
  input.addEventListener("input", cut);
  new IntersectionObserver((entries, near) => {
    if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
    near.disconnect();
    draw();
  }, { rootMargin: "50%" }).observe(panel);
  document.getElementById("slider-figure").addEventListener("drawn", ({ detail }) => {
    detail.addEventListener("click", (_, item) => choose(item?.datum?.module));
  });
}
}
