// The panel beside the map: one layer closely, bars of groups, costs against sparsity.
import { ratio } from "./figures.js";
import { clip, known } from "./numbers.js";
import { colorOf } from "./pictures.js";

const BAR = 17;

// Magnitudes of a layer before pruning, those below the threshold in color.
export function histogram(figures, state, i, width) {
  const { text, histograms } = figures;
  const place = figures.places?.get(i);
  if (place === undefined) return null;
  const top = histograms.top[place];
  const heights = histograms.heights.subarray(place * histograms.bins,
    (place + 1) * histograms.bins);
  const [high, floor, step] = [54, 62, (width - 8) / heights.length];
  const cut = figures.threshold(state);
  // Layers pruned to one share have different thresholds, which the histogram places.
  let end = cut === null ? null : Math.min(1.02, cut / top);
  const counts = figures.counts(state);
  const share = ratio(counts.weights[i] - counts.left[i], counts.weights[i]);
  const isOwnShare = figures.isLevel(state) && state.policy === "layerwise_magnitude" && share;
  if (isOwnShare) {
    const all = heights.reduce((sum, height) => sum + height, 0);
    let [below, bar] = [0, 0];
    for (; bar < heights.length && below + heights[bar] < share * all; bar += 1) {
      below += heights[bar];
    }
    end = (bar + (heights[bar] ? (share * all - below) / heights[bar] : 0)) / heights.length;
  }
  const x = (part) => 4 + part * (width - 8);
  const shapes = [];
  heights.forEach((height, bar) => {
    const [left, h] = [4 + bar * step, (high * height) / 255];
    const inside = end === null
      ? 0
      : Math.max(0, Math.min(1, end * heights.length - bar)) * (step - 0.7);
    if (inside > 0) shapes.push({ t: "rect", x: left, y: floor - h, w: inside, h, fill: "accent" });
    if (inside < step - 0.7) {
      shapes.push({ t: "rect", x: left + inside, y: floor - h, w: step - 0.7 - inside, h,
        fill: "soft", opacity: 0.6 });
    }
  });
  shapes.push({ t: "line", x1: 4, x2: width - 4, y1: floor, y2: floor, stroke: "line" });
  if (end !== null && share) {
    const label = cut === null
      ? text.say("smallest_share", { share: text.percent(share) })
      : text.say("threshold", { value: text.significant(cut, 3) });
    const at = x(Math.min(1, end));
    shapes.push({ t: "line", x1: at, x2: at, y1: 4, y2: floor + 3, stroke: "ink" });
    shapes.push({ t: "text", x: at + (end > 0.55 ? -5 : 5), y: 14,
      anchor: end > 0.55 ? "end" : "start", size: 11, text: label });
  }
  shapes.push({ t: "text", x: 4, y: floor + 14, size: 11, fill: "soft",
    text: text.say("magnitude_axis") });
  shapes.push({ t: "text", x: width - 4, y: floor + 14, size: 11, fill: "soft", anchor: "end",
    text: text.significant(top, 2) });
  return { shapes, width, height: floor + 20,
    description: text.say("histogram_of", { name: figures.nameOf(i) }) };
}

// Horizontal bars with a label and a text each.
export function bars(rows, description, width, { left = 96, signed = false } = {}) {
  const most =
    Math.max(signed ? 0.02 : 0, ...rows.map(({ value }) => (known(value) ? Math.abs(value) : 0)))
    || 1;
  const room = width - left - 84;
  const zero = signed ? left + room / 2 : left;
  const shapes = rows.flatMap(({ label, value, text, fill, dash, tip }, k) => {
    const w = known(value) ? ((signed ? room / 2 : room) * Math.abs(value)) / most : 0;
    const x = value < 0 ? zero - w : zero;
    return [{ t: "text", x: left - 8, y: k * BAR + 13, anchor: "end", size: 12,
      text: clip(label, Math.floor((left - 8) / 6)) }, { t: "rect", x, y: k * BAR + 3, w, h: 11,
      fill: dash ? undefined : fill ?? "ink", stroke: dash ? "soft" : undefined, dash, tip,
      opacity: 0.85 }, { t: "text", x: signed ? width - 4 : x + w + 6, y: k * BAR + 13,
      anchor: signed ? "end" : "start", size: 11.5, fill: "soft", text }];
  });
  return { shapes, width, height: rows.length * BAR + 4, description };
}

export function layoutBars(figures, state, i, width) {
  const { text } = figures;
  const rows = figures.layouts(state, i).map(({ key, bytes, ratio: value, fits }) => {
    const note = fits ? "" : ` ${text.say(fits === null ? "two_four_unknown" : "two_four_unfit")}`;
    return { label: text.say(`layout_${key}`), value, text: `${text.times(value)}${note}`,
      fill: key === "dense" ? "dense" : "ink", dash: fits ? undefined : "3 3",
      tip: text.scaled(bytes, "B") };
  });
  return rows.length
    ? bars(rows, text.say("layouts_of", { name: figures.nameOf(i) }), width, { left: 70 })
    : null;
}

// Small squares, one per head or expert, colored by sparsity.
function squares(label, shares, text, width, fill = colorOf,
  write = (share) => text.percent(share))
{
  const size = Math.max(3,
    Math.min(14, Math.floor((width - 100) / Math.min(shares.length, 64)) - 1));
  const across = Math.floor((width - 100) / (size + 1));
  const shapes = shares.slice(0, 1024).map((share, k) => ({ t: "rect",
    x: 96 + (k % across) * (size + 1), y: 3 + Math.floor(k / across) * (size + 1), w: size, h: size,
    fill: fill(share), tip: `${label} ${k}: ${write(share)}` })
  );
  const height = 8 + (Math.floor((Math.min(1024, shares.length) - 1) / across) + 1) * (size + 1);
  return { shapes: [{ t: "text", x: 4, y: 13, size: 12, text: clip(label, 14) }, ...shapes], width,
    height, description: label };
}

// Sentence on the zeros that layers have in common with the variant to compare with.
export function sharedZeros(figures, state, members) {
  const { text } = figures;
  const shared = figures.overlap(state, members);
  if (!shared) return "";
  const [least, most] = [text.percent(shared.least), text.percent(shared.most)];
  return text.say(least === most ? "overlap" : "overlap_range", { least, most,
    other: figures.variant(state.against).label });
}

// Sentences on the layer in detail.
function why(figures, state, i) {
  const { text } = figures;
  const counts = figures.counts(state);
  if (Number.isNaN(counts.of.total[i])) return [text.say("layer_absent")];
  const zeros = counts.weights[i] - counts.left[i];
  const slack = counts.slack?.[i] ? ` ± ${text.count(counts.slack[i])}` : "";
  const lines = [
    text.say("layer_zeros", { share: text.percent(ratio(zeros, counts.weights[i])),
      zeros: text.count(known(zeros) ? zeros : null) + slack,
      weights: text.count(counts.weights[i]) }),
  ];
  const spread = counts.of.isFirst ? figures.deviation[i] : NaN;
  const own = figures.value(figures.metric({ ...state, metric: "deviation" }),
    figures.scope("prunable", state));
  if (known(spread) && own) {
    const part = spread / own;
    const words = { spread: text.significant(spread, 3),
      times: text.figures(part < 1 ? 1 / part : part, 1) };
    const about = Math.abs(part - 1) < 0.05
      ? "spread_as_model"
      : part < 1
      ? "spread_smaller"
      : "spread_larger";
    lines.push(text.say(about, words));
  }
  if (state.metric === "difference") lines.push(sharedZeros(figures, state, [i]));
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
  const block = modules.blocks[i];
  const heading = block === null
    ? modules.projections[i]
    : text.say("block_layer", { block, layer: modules.projections[i] });
  if (figures.isPair) return { heading, note: figures.nameOf(i), ...pairLayer(figures, i, width) };
  const { of } = figures.counts(state);
  const place = figures.variants.indexOf(of);
  const shape = of.shapes[i]?.join(" × ") ?? "";
  const dtype = of.dtypes[i] ?? "";
  const note = [data.labels.groups[modules.groups[i]], shape, dtype, figures.nameOf(i)].filter(
    Boolean,
  ).join(" · ");
  const drawn = of.isFirst ? histogram(figures, state, i, width) : null;
  const inner = figures.isLevel(state) ? null : data.inner?.[place]?.[i];
  const lines = why(figures, state, i);
  if (inner && inner.zeroRows + inner.zeroColumns) {
    lines.push(
      text.say("empty_rows", { rows: text.count(inner.zeroRows),
        columns: text.count(inner.zeroColumns) }),
    );
  }
  const pictures = [drawn];
  for (const kind of ["heads", "experts"]) {
    if (inner?.[kind]?.length) pictures.push(squares(text.say(kind), inner[kind], text, width));
  }
  pictures.push(layoutBars(figures, state, i, width));
  const reason = drawn || !of.prunable[i]
    ? ""
    : of.isFirst
    ? data.whyNoHistogram
    : text.say("other_model");
  return { heading, note, lines, reason, pictures: pictures.filter(Boolean) };
}

// Zeros of a layer before and after, and its other figures as a list.
function pairLayer(figures, i, width) {
  const { text, data } = figures;
  const names = ["bothZero", "onlyBefore", "onlyAfter", "neither"];
  const counts = names.map((name) => data.arrays[data.overlap[name]][i]);
  const all = counts.reduce((sum, count) => sum + count, 0);
  const rows = names.map((name, k) => ({ label: text.say(`overlap_${name}`),
    value: ratio(counts[k], all), text: text.percent(ratio(counts[k], all)),
    fill: k ? "soft" : "accent" })
  );
  const write = (of,
    kind) => (kind === "text"
      ? of[i]
      : kind === "count"
      ? text.count(data.arrays[of][i])
      : text.value(data.arrays[of][i], kind));
  const list = data.rows.filter(([, of, kind]) =>
    known(kind === "text" ? of[i] : data.arrays[of][i])
  ).map(([label, of, kind]) => [label, write(of, kind)]);
  const inside = ({ module }) => `${figures.modules.names[i]}.`.startsWith(`${module}.`);
  const lines = data.removed.filter(inside).map(({ label, name, among, gone }) =>
    text.say("removed", { kind: label, name, gone: gone.join(", "), among: text.count(among) })
  );
  return { lines, list, reason: all ? "" : text.say("not_shared"),
    pictures: all ? [bars(rows, text.say("overlap_title"), width, { left: 150 })] : [] };
}

// Removed blocks, experts and heads, each as a square among those that stay.
export function removed(figures, state, width) {
  const { text, data } = figures;
  const shapes = [];
  let [y, title] = [0, ""];
  for (const { label, name, among, gone } of data.removed) {
    if (label !== title) {
      shapes.push({ t: "text", x: 4, y: y += 20, weight: 600,
        text: clip(title = label, Math.floor(width / 6.8)) });
    }
    const row = squares(name, Array.from({ length: among }, (_, k) => Number(gone.includes(k))),
      text, width, (isGone) => (isGone ? "accent" : "line"));
    const part = row.shapes.map((shape) => ({ ...shape, y: shape.y + y + 6, tip: undefined }));
    shapes.push(...part);
    y += row.height + 4;
  }
  return { shapes, width, height: y + 8, description: text.say("panel_removed") };
}

// Use of experts by the router: a square per expert, a row per module; removed ones are struck out.
// Colors of squares are those of both themes, but that of an unknown figure.
export function experts(figures, state, width) {
  const { text, data } = figures;
  const shapes = [];
  let y = 0;
  for (const { title, high, rows } of data.experts) {
    shapes.push({ t: "text", x: 4, y: y += 20, weight: 600,
      text: clip(title, Math.floor(width / 6.8)) });
    const fill = (
      times,
    ) => (known(times)
      ? colorOf(times < 1 ? times / 2 : 0.5 + (times - 1) / (2 * (high - 1)), true)
      : "line");
    for (const { name, values, gone } of rows) {
      const row = squares(name, values, text, width, fill, (times) => text.times(times));
      const [label, ...cells] = row.shapes.map((shape) => ({ ...shape, y: shape.y + y + 6 }));
      const struck = gone.filter((k) => cells[k]).map((k) => ({ t: "line", x1: cells[k].x,
        y1: cells[k].y, x2: cells[k].x + cells[k].w, y2: cells[k].y + cells[k].h,
        stroke: known(values[k]) ? "#1c1d20" : "ink" })
      );
      shapes.push(label, ...cells, ...struck);
      y += Math.max(row.height, 15);
    }
  }
  return { shapes, width, height: y + 12, note: text.say("experts_note"),
    description: text.say("panel_experts") };
}

// Bars of the metric by group, projection or block.
export function groups(figures, state, width) {
  const metric = figures.metric(state);
  const rows = figures.bars(state).map(({ label, value, members }) => ({ label, value, members,
    text: figures.text.value(value, metric.kind), fill: "dense" })
  );
  return {
    ...bars(rows, figures.text.say("bars_of", { metric: metric.label }), width, { left: 110,
      signed: metric.signed }),
    rows,
  };
}

const line = (points, stroke, dash) => ({ t: "path", points, stroke, width: 2, dash });

// Axes of a curve: frame, ticks and titles.
function axes({ x, y, xTicks, yTicks, xTitle, yTitle, left, right, top, bottom }) {
  const shapes = yTicks.flatMap((
    [value, label],
  ) => [{ t: "line", x1: left, x2: right, y1: y(value), y2: y(value), stroke: "line" }, { t: "text",
    x: left - 6, y: y(value) + 4, anchor: "end", size: 11, fill: "soft", text: label }]
  );
  shapes.push(
    ...xTicks.map(([value, label]) => ({ t: "text", x: x(value), y: bottom + 15, anchor: "middle",
      size: 11, fill: "soft", text: label })
    ),
  );
  shapes.push({ t: "text", x: (right + 24) / 2, y: bottom + 31, anchor: "middle", size: 11.5,
    fill: "soft", text: xTitle }, { t: "text", x: 4, y: top - 8, size: 11.5, fill: "soft",
    text: yTitle });
  return shapes;
}

// Bytes and FLOPs against sparsity, relative to dense, with break-even and the level in view.
export function costs(figures, state, width) {
  const { text } = figures;
  const rows = figures.curve(state).filter(({ ratio: value, share }) =>
    known(value) && known(share)
  );
  if (!rows.length) return null;
  const asCsr = figures.curve({ ...state, layout: "csr" });
  const [left, right, top, bottom, height] = [44, width - 24, 24, 216, 252];
  const ratios = [...rows.map((row) => row.ratio), ...asCsr.map((row) => row.flopsRatio ?? 0)];
  const most = Math.max(1.05, ...ratios) * 1.05;
  const x = (share) => left + share * (right - left);
  const y = (value) => bottom - (value / most) * (bottom - top);
  const ticks = [0, 0.5, 1, 1.5, 2, 2.5].filter((value) => value <= most);
  const now = figures.sums(state, state.selection.length ? state.selection : null);
  const shapes = axes({ x, y, left, right, top, bottom,
    xTicks: [0, 0.25, 0.5, 0.75, 1].map((share) => [share, text.percent(share, 0)]),
    yTicks: ticks.map((value) => [value, text.figures(value, 1)]), xTitle: text.say("share_axis"),
    yTitle: text.say("cost_axis") });
  const last = rows.at(-1);
  shapes.push(line([[x(0), y(1)], [x(1), y(1)]], "dense"),
    line(rows.map((row) => [x(row.share), y(row.ratio)]), "ink"));
  const flops = asCsr.filter((row) => known(row.flopsRatio) && known(row.share));
  shapes.push(line(flops.map((row) => [x(row.share), y(row.flopsRatio)]), "accent", "5 3"));
  shapes.push({ t: "text", x: x(0) + 6, y: y(rows[0].ratio) - 6, size: 11.5,
    text: text.say("bytes_as", { layout: text.say(`as_${state.layout}`) }) });
  if (flops.length) {
    shapes.push({ t: "text", x: x(0) + 6, y: y(flops[0].flopsRatio) + 15, size: 11.5,
      fill: "accent", text: text.say("flops_line") });
  }
  const even = figures.breakEven(state.layout, state.selection.length ? state.selection : null);
  if (even !== null) {
    shapes.push({ t: "circle", x: x(even), y: y(1), r: 4, fill: "paper", stroke: "dense",
      width: 2 });
  }
  if (known(now.share) && known(now.ratio)) {
    const end = now.share > 0.6;
    shapes.push({ t: "circle", x: x(now.share), y: y(now.ratio), r: 5, fill: "ink" });
    shapes.push({ t: "text", x: x(now.share) + (end ? -8 : 8), y: y(now.ratio) - 7,
      anchor: end ? "end" : "start", size: 12, weight: 600,
      text: `${text.percent(now.share)}: ${text.times(now.ratio)}` });
  }
  const at = (px) => Math.max(0, Math.min(last.level, (px - left) / (right - left)));
  return { shapes, width, height,
    description: text.say("cost_curve", { layout: text.say(`as_${state.layout}`) }), at };
}

// Quality against bytes of the measured variants; the level in view has bytes only.
export function quality(figures, state, width) {
  const { text, data, variants } = figures;
  const { points, name, moreIsBetter } = data.quality;
  const [left, right, top, bottom, height] = [52, width - 24, 24, 216, 252];
  const wide = points.flatMap(({ value, ends }) => [value, ...(ends ?? [])]);
  const isLog = moreIsBetter === false && Math.min(...wide) > 0;
  const scaled = isLog ? Math.log10 : Number;
  let [low, high] = [Math.min(...wide.map(scaled)), Math.max(...wide.map(scaled))];
  [low, high] = [low - 0.08 * (high - low || 1), high + 0.12 * (high - low || 1)];
  const most = 1.08 * Math.max(...points.map(({ bytes }) => bytes));
  const x = (bytes) => left + (bytes / most) * (right - left);
  const y = (value) => bottom - ((scaled(value) - low) / (high - low)) * (bottom - top);
  const yTicks = [0.1, 0.5, 0.9].map((part) => low + part * (high - low)).map((
    value,
  ) => (isLog ? 10 ** value : value)).map((value) => [value, text.significant(value, 3)]);
  const shapes = axes({ x, y, left, right, top, bottom,
    xTicks: [0, most / 2, most].map((bytes) => [bytes, text.scaled(bytes, "B")]), yTicks,
    xTitle: text.say("smallest_bytes_axis"),
    yTitle: `${name}${moreIsBetter === false ? ` ↓` : moreIsBetter ? ` ↑` : ""}` });
  const labels = [];
  // Earlier intervals are wider where intervals overlap.
  const spans = points.filter(({ ends }) => ends);
  const meet = (one, other) =>
    Math.abs(x(one.bytes) - x(other.bytes)) < 6 && one.ends[0] <= other.ends[1]
    && other.ends[0] <= one.ends[1];
  for (const point of points) {
    const { variants: members, bytes, value, ends, text: score } = point;
    const names = members.map((k) => variants[k].label);
    const isNow = members.some((k) => variants[k].name === state.variant);
    if (ends) {
      const later = spans.slice(spans.indexOf(point) + 1).filter((other) => meet(point, other));
      shapes.push({ t: "line", x1: x(bytes), x2: x(bytes), y1: y(ends[0]), y2: y(ends[1]),
        stroke: isNow ? "accent" : "ink", width: 1 + 3 * later.length, opacity: 0.6 });
    }
    shapes.push({ t: "circle", x: x(bytes), y: y(value), r: isNow ? 6 : 4,
      fill: isNow ? "accent" : "ink", tip: `${names.join(", ")}: ${score}` });
    const end = x(bytes) > 0.7 * width;
    // A label that would lie on another one, above or below its point, is left to the tooltip.
    const height = [-5, 13].map((away) => y(value) + away).find((place) =>
      !labels.some(([a, b]) => Math.abs(a - x(bytes)) < 90 && Math.abs(b - place) < 11)
    );
    if (height === undefined) continue;
    labels.push([x(bytes), height]);
    shapes.push({ t: "text", x: x(bytes) + (end ? -8 : 8), y: height, anchor: end ? "end" : "start",
      size: 11, text: clip(names[0], 20) });
  }
  const { subject, leftOut } = data.quality;
  const notes = [subject, ...(spans.length ? [text.say("interval_note")] : []),
    ...(leftOut.length ? [text.say("left_out", { names: leftOut.join(", ") })] : [])];
  const note = notes.join(" · ");
  return { shapes, width, height, note, description: text.say("quality_curve", { measure: name }) };
}
