// The panel beside the map: one layer closely, bars of groups, costs against sparsity.
import { ratio } from "./figures.js";
import { clip, known } from "./numbers.js";
import { inside, uncounted } from "./parts.js";
import { beside, colorOf, line, rect, small, words } from "./pictures.js";

// Height of a row of bars; greatest one, and height of all bars, where they fill the panel.
const [BAR, TALL, BARS] = [15, 26, 240];

// Return the place of the threshold in a histogram and its text, or null. Layers pruned to one
// share have different thresholds, which the histogram places.
function threshold(figures, state, i, top, heights) {
  const { text } = figures;
  const [cut, { of, weights, left, slack }] = [figures.threshold(state), figures.counts(state)];
  const share = ratio(weights[i] - left[i], weights[i]);
  if (!share || !of.isFirst) return null;
  if (cut !== null) {
    const value = text.significant(cut, slack?.[i] ? 2 : 3);
    return [Math.min(1.02, cut / top), text.say("threshold", { value })];
  }
  if (!figures.isMagnitude(state)) return null;
  let [rest, bar] = [share * heights.reduce((sum, height) => sum + height, 0), 0];
  for (; bar < heights.length && heights[bar] < rest; bar += 1) rest -= heights[bar];
  return [(bar + (rest / heights[bar] || 0)) / heights.length,
    text.say("smallest_share", { share: text.percent(share) })];
}

// Magnitudes of a layer before pruning, those below the threshold in color.
export function histogram(figures, state, i, width) {
  const { text, histograms } = figures;
  const place = histograms.rows?.indexOf(i) ?? -1;
  if (place < 0) return null;
  const [top, { bins }] = [histograms.top[place], histograms];
  const heights = histograms.heights.subarray(place * bins, (place + 1) * bins);
  // Each threshold has a line above the bars.
  const [high, floor, step, end] = [40, 42 + 12 * figures.views(state).length, (width - 8) / bins,
    width - 4];
  const cuts = figures.views(state).map((side) => threshold(figures, side, i, top, heights));
  const below = bins * (cuts[0]?.[0] ?? 0);
  /** @type {any[]} */
  const shapes = [...heights].map((height, bar) => {
    const [h, isBelow] = [(high * height) / 255, bar + 0.5 < below];
    const fill = isBelow ? "accent" : "soft";
    return rect(4 + bar * step, floor - h, step - 0.7, h, fill, { opacity: isBelow ? 1 : 0.6 });
  });
  const labels = [];
  cuts.forEach((cut, k) => {
    if (!cut) return;
    const [x, color] = [4 + Math.min(1, cut[0]) * (width - 8), k ? "dense" : "ink"];
    const name = cuts.length > 1 ? `${"AB"[k]} ${cut[1]}` : cut[1];
    shapes.push(line(x, 2, x, floor + 3, color));
    labels.push(beside(x, 11 + 12 * k, name, cut[0] > 0.55, { size: 11, fill: color }));
  });
  shapes.push(...labels, line(4, floor, end, floor, "line"),
    small(4, floor + 14, text.say("magnitude_axis")),
    small(end, floor + 14, text.significant(top, 2), { anchor: "end" }));
  return { shapes, width, height: floor + 20,
    description: text.say("histogram_of", { name: figures.nameOf(i) }) };
}

// Horizontal bars with a label and a text of some letters each; `most` is the end of their scale.
export function bars(rows, description, width, { most, signed = false, high = BAR, letters = 13 }) {
  const longest = (key, least) => Math.max(least, ...rows.map((row) => row[key].length));
  const left = Math.min(0.46 * width, 14 + 6.4 * longest("label", 5));
  const room = width - left - 14 - 6.4 * longest("text", letters);
  const top = Math.max(signed ? 0.02 : 0, most) || 1;
  const zero = signed ? left + room / 2 : left;
  const shapes = rows.flatMap(({ label, value, text, fill = "ink", dash, tip }, k) => {
    const w = known(value) ? ((signed ? room / 2 : room) * Math.abs(value)) / top : 0;
    const x = value < 0 ? zero - w : zero;
    const [base, y] = [(k + 0.5) * high + 4.5, k * high + 3];
    const look = { tip, opacity: 0.85, ...(dash && { dash, fill: "", stroke: "soft" }) };
    const end = signed ? [width - 4, "end"] : [x + w + 6, "start"];
    return [words(left - 8, base, clip(label, Math.floor((left - 8) / 6.2)), { anchor: "end" }),
      rect(x, y, w, high - 6, fill, look), small(end[0], base, text, { anchor: end[1] })];
  });
  return { shapes, width, height: rows.length * high + 4, description };
}

const largest = (rows) => Math.max(0, ...rows.map(({ value }) => Math.abs(value) || 0));

export function layoutBars(figures, state, i, width) {
  const { text } = figures;
  const found = figures.layouts(state, i);
  if (!found.length) return null;
  const rows = found.map((one) => ({ ...one, label: text.say(`layout_${one.key}`),
    text: text.value(one.value, "ratio", one.error), fill: one.key === "dense" ? "dense" : "ink",
    dash: one.fits ? undefined : "3 3", tip: text.scaled(one.bytes, "B") })
  );
  const most = largest(figures.extremes(state).flatMap((one) => figures.layouts(one, i)));
  const name = figures.nameOf(i);
  const plan = bars(rows, text.say("layouts_of", { name }), width, { most });
  const { fits } = found.at(-1);
  if (fits) return plan;
  const note = text.say(fits === null ? "two_four_unknown" : "two_four_unfit");
  plan.shapes.push(small(4, plan.height + 9, note));
  return { ...plan, height: plan.height + 14 };
}

// Sentence on the zeros of a layer in a variant or at a level.
function zerosOf(figures, state, i) {
  const { text } = figures;
  const counts = figures.counts(state);
  if (Number.isNaN(counts.of.total[i])) return text.say("layer_absent");
  const zeros = counts.weights[i] - counts.left[i];
  const error = counts.slack?.[i] ?? 0;
  const share = figures.write(figures.metric({ ...state, metric: "sparsity" }), [i]);
  const count = text.count(zeros) + (error ? ` ± ${text.count(error)}` : "");
  return text.say("layer_zeros", { share, zeros: count, weights: text.count(counts.weights[i]) });
}

// Sentences on the layer in detail.
function why(figures, state, i) {
  const { text } = figures;
  const { of } = figures.counts(state);
  const [a, b] = figures.views(state).map((side) => zerosOf(figures, side, i));
  const difference = figures.write(figures.metric(state), [i]);
  const lines = [b ? text.say("layer_sides", { a, b, difference }) : a];
  const spread = of.isFirst && known(of.total[i]) ? figures.deviation[i] : NaN;
  const mean = figures.value(figures.metric({ ...state, metric: "deviation" }),
    figures.scope("prunable", state));
  if (!known(spread) || !mean) return lines;
  const [own, times] = [spread, spread / mean].map((value) => text.value(value, "own"));
  lines.push(text.say("spread", { spread: own, times: `${times} ×` }));
  return lines;
}

/**
 * Return the content of the panel of one layer: heading, note, sentences and pictures.
 * @param {import("./figures.js").Figures} figures @param {import("./types").State} state
 * @returns {{ heading: string, note: string, lines: string[], pictures: any[], reason?: string,
 *   list?: [string, string][] }}
 */
export function layer(figures, state, width) {
  const { text, modules, data } = figures;
  const i = state.detail;
  if (i < 0) return { heading: text.say("no_layer"), note: "", lines: [], pictures: [] };
  const [block, name] = [modules.blocks[i], modules.projections[i]];
  const heading = block === null ? name : text.say("block_layer", { block, layer: name });
  if (figures.isPair) return { heading, note: figures.nameOf(i), ...pairLayer(figures, i, width) };
  const { of } = figures.counts(state);
  const note = [data.labels.groups[modules.groups[i]], of.shapes[i]?.join(" × "), of.dtypes[i],
    figures.nameOf(i)].filter(Boolean).join(" · ");
  const drawn = of.isFirst ? histogram(figures, state, i, width) : null;
  const { zeros } = inside(figures, state, i);
  const lines = why(figures, state, i);
  const empty = { rows: text.count(zeros?.zero_rows), columns: text.count(zeros?.zero_columns) };
  if (zeros?.zero_rows + zeros?.zero_columns) lines.push(text.say("empty_rows", empty));
  if (uncounted(figures, state, i) !== undefined) {
    const isCounted = figures.hasKernel ? "parts_asked" : "parts_uncounted";
    lines.push(text.say(figures.isLevel(state) ? "parts_level" : isCounted));
  }
  lines.push(zeros?.reason ?? "");
  // With two sides, the bytes in four layouts would be those of A alone.
  const pictures = [drawn, figures.compares(state) ? null : layoutBars(figures, state, i, width)];
  const missing = of.isFirst ? data.whyNoHistogram : text.say("other_model");
  return { heading, note, lines, reason: drawn || !of.prunable[i] ? "" : missing,
    pictures: pictures.filter(Boolean) };
}

// Zeros of a layer before and after, and its other figures as a list.
function pairLayer(figures, i, width) {
  const { text, data } = figures;
  const names = ["bothZero", "onlyBefore", "onlyAfter", "neither"];
  const counts = names.map((name) => data.arrays[data.overlap[name]][i]);
  const all = counts.reduce((sum, count) => sum + count, 0);
  const rows = names.map((name, k) => {
    const value = ratio(counts[k], all);
    return { label: text.say(`overlap_${name}`), value, text: text.percent(value),
      fill: k ? "soft" : "accent" };
  });
  const list = data.rows.flatMap(([label, of, kind]) => {
    const value = (kind === "text" ? of : data.arrays[of])[i];
    return known(value) ? [[label, text.value(value, kind)]] : [];
  });
  const isIn = ({ module }) => `${figures.modules.names[i]}.`.startsWith(`${module}.`);
  const lines = data.removed.filter(isIn).map(({ label, name, among, gone }) =>
    text.say("removed", { kind: label, name, gone: gone.join(", "), among: text.count(among) })
  );
  return { lines, list, reason: all ? "" : text.say("not_shared"),
    pictures: all ? [bars(rows, text.say("overlap_title"), width, { most: 1 })] : [] };
}

// Bars of the metric by group, projection or block.
export function groups(figures, state, width) {
  const metric = figures.metric(state);
  const rows = figures.bars(state).flatMap(({ label, value, members }) => {
    const fill = metric.signed ? colorOf(value < 0 ? 0.1 : 0.9, true) : "dense";
    const bar = { label, value, text: figures.write(metric, members), fill };
    const both = { label: "", value: null, text: figures.sides(state, members) };
    return figures.compares(state) ? [bar, both] : [bar];
  });
  // One scale for all levels: shares to 100 %.
  const most = metric.kind === "share" && !metric.root
    ? 1
    : largest(figures.extremes(state).flatMap((one) => figures.bars(one)));
  const high = Math.max(BAR, Math.min(TALL, BARS / rows.length));
  const [key, n] = state.selection.length ? ["selected", state.selection.length] : ["in_view", ""];
  const note = figures.text.say(`bars_${key}`, { n });
  const description = figures.text.say("bars_of", { metric: metric.label });
  const look = { signed: metric.signed, most, letters: 18, high };
  return { note, ...bars(rows, description, width, look) };
}

// Bytes and FLOPs against sparsity, relative to dense, with the level in view.
export function costs(figures, state, width) {
  const { text } = figures;
  const points = (layout, key) => {
    const levels = figures.curve({ ...state, layout });
    return levels.map((level) => [level.share, level[key]]).filter((point) => point.every(known));
  };
  const [bytes, flops] = [points(state.layout, "ratio"), points("csr", "flopsRatio")];
  if (!bytes.length) return null;
  const most = Math.max(1.05, ...[...bytes, ...flops].map(([, value]) => value)) * 1.05;
  const [left, right, top, bottom] = [44, width - 24, 39, 216];
  const x = (share) => left + share * (right - left);
  const y = (value) => bottom - (value / most) * (bottom - top);
  const middle = { anchor: "middle" };
  /** @type {any[]} */
  const shapes = [];
  for (let value = 0; value <= most; value += 0.5) {
    shapes.push(line(left, y(value), right, y(value), "line"),
      small(left - 6, y(value) + 4, text.figures(value, 1), { anchor: "end" }));
  }
  for (let share = 0; share <= 1; share += 0.25) {
    shapes.push(small(x(share), bottom + 15, text.percent(share, 0), middle));
  }
  shapes.push(small((right + 24) / 2, bottom + 31, text.say("share_axis"), middle),
    small(4, top - 8, text.say("cost_axis")));
  const layout = text.say(`as_${state.layout}`);
  const name = (title, fill, k) =>
    words(width - 4, 12 + 15 * k, title, { size: 11.5, fill, anchor: "end" });
  shapes.push(name(text.say("bytes_as", { layout }), "ink", 0));
  if (flops.length) shapes.push(name(text.say("flops_line"), "accent", 1));
  const curve = (ends, stroke, dash) => ({ t: "path", stroke, dash, width: 2,
    points: ends.map(([share, value]) => [x(share), y(value)]) });
  shapes.push(curve([[0, 1], [1, 1]], "dense"), curve(bytes, "ink"), curve(flops, "accent", "5 3"));
  const members = state.selection.length ? state.selection : null;
  const [now, texts] = [figures.sums(state, members), figures.written(state, members)];
  if (known(now.share) && known(now.ratio)) {
    const [cx, cy] = [x(now.share), y(now.ratio)];
    const label = `${texts.share}: ${texts.ratio}`;
    shapes.push({ t: "circle", x: cx, y: cy, r: 5, fill: "ink" },
      beside(cx, cy - 7, label, now.share > 0.6, { weight: 600 }));
  }
  return { shapes, width, height: 252, description: text.say("cost_curve", { layout }) };
}
