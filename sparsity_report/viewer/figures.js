// Every figure that the viewer shows, computed from the payload; each has one definition.
/** @import { Counts, Layout, Metric, Payload, Policy, State, Variant } from "./types" */
import { known, ordered, Text } from "./numbers.js";

export const AT_LEVEL = "at level";
// Keys of the state of sides A and B: the variant, or the policy and the sparsity of a level.
/** @type {string[][]} */
export const SIDES = [["variant", "policy", "sparsity"], ["against", "against_policy",
  "against_sparsity"]];
export const LAYOUTS = ["csr", "bitmask", "dense"];
const [LARGEST_INT32, SAME_LEVEL] = [2 ** 31 - 1, 1e-4];
// Amounts that metrics add up, by the names in `parts`; others are arrays of the variant.
const AMOUNTS = { zeros: (f, c, i) => c.weights[i] - c.left[i],
  weight_total: (f, c, i) => c.weights[i],
  squares: (f, c, i) => c.of.isFirst ? f.deviation[i] ** 2 * c.weights[i] : NaN,
  nonzero: (f, c, i) => c.nonzero[i], flops_per_token: (f, c, i, layout) => f.flops(c, i, layout),
  stored_bytes: (f, c, i, layout) => f.bytes(c, i, layout),
  bytes_before: (f, c, i) => c.of.base[i] };

export const ratio = (part, whole) => known(part) && known(whole) && whole ? part / whole : null;
// A place that is not between two digits, as in view_state.py.
const WHOLE = "(?!(?<=[0-9])(?=[0-9]))";
const certain = (value) => (Number.isNaN(value) ? null : value);

// Divide and round half to even, exactly below 2^53.
function divided(numerator, divisor) {
  const quotient = Math.floor(numerator / divisor);
  const twice = 2 * (numerator - quotient * divisor);
  return twice > divisor || (twice === divisor && quotient % 2) ? quotient + 1 : quotient;
}

// Return lists of members by their key, in the order of their first ones.
export function grouped(members, keyOf) {
  const groups = new Map();
  for (const one of members) {
    const key = keyOf(one);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(one);
  }
  return [...groups];
}

export class Figures {
  /** @param {Payload} data */
  constructor(data, hasKernel = false) {
    this.hasKernel = hasKernel;
    this.id = Math.random();
    const { arrays, modules } = data;
    // Return a value with arrays in the place of their numbers.
    const filled = (one, keys, places = one) => ({ ...one,
      ...Object.fromEntries(keys.map((key) => [key, arrays[places[key]]])) });
    this.data = data;
    this.modules = modules;
    this.isPair = data.kind === "pair";
    this.text = new Text(data.words);
    this.size = modules.names.length;
    this.all = [...modules.names.keys()];
    this.positions = new Map(modules.names.map((name, i) => [name, i]));
    /** @type {Variant[]} */
    this.variants = (data.variants ?? []).map((one) =>
      filled(one, Object.keys(one.arrays), one.arrays)
    );
    /** @type {Policy[]} */
    this.policies = (data.policies ?? []).map((one) => filled(one, ["rows", "left"]));
    this.deviation = arrays[data.deviation] ?? new Float64Array(this.size).fill(NaN);
    /** @type {Metric[]} */
    this.metrics = data.metrics.map(({ amounts, sizes, ...one }) => ({ ...one,
      amount: arrays[amounts] && ((i) => arrays[amounts][i]),
      size: arrays[sizes] && ((i) => arrays[sizes][i]) })
    );
    this.histograms = filled(data.histograms ?? {}, ["rows", "top", "heights"]);
    this.kept = new Map();
  }

  // Keep a value by key; the number of kept values is bounded.
  once(key, make) {
    if (!this.kept.has(key)) {
      if (this.kept.size > Math.max(40, Math.min(400, 4e6 / this.size))) this.kept.clear();
      this.kept.set(key, make());
    }
    return this.kept.get(key);
  }

  /** @param {State} state */
  isLevel(state) {
    return state.variant === AT_LEVEL;
  }

  // True while the difference of two sides is in view.
  compares({ metric }) {
    return metric === "difference";
  }

  /** Return the state that shows side B alone. @param {State} state @returns {State} */
  other(state) {
    const [variant, policy, sparsity] = SIDES[1].map((key) => state[key]);
    const metric = this.compares(state) ? "sparsity" : state.metric;
    return { ...state, variant, policy, sparsity, metric };
  }

  /** Return the states of the side or the sides in view. @param {State} state */
  views(state) {
    return this.compares(state) ? [state, this.other(state)] : [state];
  }

  // Name of the variant or level in view.
  shown(state) {
    const { text } = this;
    const level = this.levelOf(state);
    if (!level) return this.variant(state.variant).label;
    const { policy: { label, patterns }, k } = level;
    return patterns?.[k]
      ? text.say("pattern", { pattern: patterns[k] })
      : text.say("level_of", { policy: label, level: text.level(state.sparsity) });
  }

  /**
   * Return the state and, of a level, those at both ends of the slider: no value is beyond theirs.
   * @param {State} state
   */
  extremes(state) {
    const levels = this.levelOf(state)?.policy.levels;
    const ends = levels ? [levels[0], levels.at(-1)] : [];
    return [state, ...ends.map((sparsity) => ({ ...state, sparsity }))];
  }

  /** Return the policy of a state, or null. @param {{ policy: string }} state */
  policyOf(state) {
    return this.policies.find(({ key, disabled }) => key === state.policy && !disabled) ?? null;
  }

  /**
   * Return the place of the level nearest to a sparsity.
   * @param {Policy} policy @param {number} sparsity
   */
  place(policy, sparsity) {
    const distances = policy.levels.map((level) => Math.abs(level - sparsity));
    return distances.indexOf(Math.min(...distances));
  }

  /** Return the policy and the place of the level in view, or null. @param {State} state */
  levelOf(state) {
    const policy = this.isLevel(state) ? this.policyOf(state) : null;
    return policy && { policy, k: this.place(policy, state.sparsity) };
  }

  variant(name) {
    return this.variants.find((one) => one.name === name) ?? this.variants[0];
  }

  /**
   * Return nonzeros of all modules of the variant or level in view.
   * @param {State} state @returns {Counts}
   */
  counts(state) {
    const level = this.levelOf(state);
    if (level) return this.level(level.policy, level.k);
    const of = this.variant(state.variant);
    return this.once(`variant ${of.name}`,
      () => ({ of, left: of.weightNonzero, weights: of.weightTotal, nonzero: of.nonzero,
        slack: null }));
  }

  /** @param {Policy} policy @param {number} k @returns {Counts} */
  level(policy, k) {
    const of = this.variants[0];
    return this.once(`level ${policy.key} ${k}`, () => {
      const [left, slack] = [of.weightNonzero.slice(), new Float64Array(this.size)];
      policy.rows.forEach((i, row) => {
        left[i] = policy.left[row * policy.levels.length + k];
        slack[i] = Math.ceil(of.weightTotal[i] * policy.slack[k]);
      });
      const counts = (rest) => ({ of, left: rest, weights: of.weightTotal, slack,
        nonzero: rest.map((count, i) => of.nonzero[i] - of.weightNonzero[i] + count) });
      const more = policy.slack[k] ? counts(left.map((count, i) => count + slack[i])) : null;
      return { ...counts(left), more };
    });
  }

  /**
   * True if a variant is stored in a layout, so that its bytes and FLOPs are those of the study.
   * @param {Counts} counts @param {Layout} layout
   */
  isStored({ of, slack }, layout) {
    return slack === null && layout === (of.layout === "csr" ? "csr" : "dense");
  }

  /**
   * Bytes of a module with its prunable matrices in a layout.
   * @param {Counts} counts @param {number} i @param {Layout} layout
   */
  bytes(counts, i, layout) {
    const { of, left } = counts;
    if (this.isStored(counts, layout)) return of.stored[i];
    if (!of.prunable[i] || !of.weightTotal[i]) return of.rest[i];
    const [weights, v] = [of.weightTotal[i], of.value[i]];
    if (layout === "csr" && of.runs[i]) {
      const index = left[i] <= LARGEST_INT32 && of.columns[i] <= LARGEST_INT32 ? 4 : 8;
      return left[i] * (v + index) + of.pointers[i] * index + of.rest[i];
    }
    if (layout === "bitmask" && known(of.pointers[i])) {
      return left[i] * v + Math.ceil(weights / 8) + of.rest[i];
    }
    return weights * v + of.rest[i];
  }

  /**
   * FLOPs per token of a module; only CSR skips zeros.
   * @param {Counts} counts @param {number} i @param {Layout} layout
   */
  flops(counts, i, layout) {
    const { of, left } = counts;
    if (this.isStored(counts, layout)) return of.flops[i];
    if (!of.prunable[i] || !of.weightTotal[i]) return of.restFlops[i];
    const weights = layout === "csr" && of.runs[i] ? left[i] : of.weightTotal[i];
    return divided(2 * weights * of.usesTop[i], of.usesBottom[i]);
  }

  /**
   * Sums over modules, or the whole model; unknown sums are null.
   * @param {State} state @param {number[] | null} members
   */
  sums(state, members = null) {
    const { variant, policy, sparsity, layout } = state;
    const sum = () => this.summed(this.counts(state), layout, members);
    return members ? sum() : this.once(`sums ${[variant, policy, sparsity, layout]}`, sum);
  }

  summed(counts, layout, members = null) {
    const { of, left, weights } = counts;
    const sum = { zeros: 0, prunable: 0, bytes: 0, base: 0, flops: 0, denseFlops: 0 };
    for (const i of members ?? this.all) {
      if (Number.isNaN(of.total[i])) continue;
      if (of.prunable[i]) {
        sum.zeros += weights[i] - left[i];
        sum.prunable += weights[i];
      }
      sum.bytes += this.bytes(counts, i, layout);
      sum.base += of.base[i];
      sum.flops += this.flops(counts, i, layout);
      sum.denseFlops += this.flops(counts, i, "dense");
    }
    for (const key of Object.keys(sum)) sum[key] = certain(sum[key]);
    const { zeros, prunable, bytes, base, flops, denseFlops } = sum;
    return { ...sum, share: ratio(zeros, prunable), ratio: ratio(bytes, base),
      flopsRatio: ratio(flops, denseFlops) };
  }

  /**
   * Texts of sums over modules, with the errors of a level. All its modules together have no more
   * zeros than known: one has fewer only where others have more.
   * @param {State} state @param {number[] | null} members
   */
  written(state, members = null) {
    const { text } = this;
    const { layout } = state;
    const [counts, sums] = [this.counts(state), this.sums(state, members)];
    let [zeros, bytes] = [0, 0];
    if (counts.more) {
      const [{ policy, k }, whole] = [this.levelOf(state), this.sums(state)];
      const inside = new Set(members);
      if (!members || policy.rows.every((i) => inside.has(i))) {
        bytes = (policy.most[layout]?.[k] ?? whole.bytes) - whole.bytes;
      } else {
        const most = this.summed(counts.more, layout, members);
        [zeros, bytes] = [sums.zeros - most.zeros, most.bytes - sums.bytes];
      }
    }
    return { share: text.value(sums.share, "share", ratio(zeros, sums.prunable)),
      prunable: text.scaled(sums.prunable), layout: text.say(`as_${layout}`),
      bytes: text.value(sums.bytes, "bytes", bytes),
      ratio: text.value(sums.ratio, "ratio", ratio(bytes, sums.base)) };
  }

  /** Sums at every level of a policy. @param {State} state */
  curve(state) {
    const policy = this.policyOf(state);
    if (!policy) return [];
    const members = state.selection.length ? state.selection : null;
    const sumsAt = (level, k) => ({ level,
      ...this.summed(this.level(policy, k), state.layout, members) });
    const key = `curve ${policy.key} ${state.layout} ${state.selection}`;
    return this.once(key, () => policy.levels.map(sumsAt));
  }

  // Text of the name of a layer.
  nameOf(i) {
    return this.modules.shown?.[i] ?? this.modules.names[i];
  }

  // Name of a layer without what the names of all layers in blocks begin with.
  short(i) {
    const prefix = this.once("prefix", () => {
      const { names, blocks } = this.modules;
      const inside = names.filter((_, k) => blocks[k] !== null).sort();
      const [first, last] = [inside[0] ?? "", inside.at(-1) ?? ""];
      const same = [...first].findIndex((letter, k) => letter !== last[k]);
      return first.slice(0, first.lastIndexOf(".", same < 0 ? first.length : same) + 1);
    });
    const name = this.nameOf(i);
    return name.startsWith(prefix) ? name.slice(prefix.length) : name;
  }

  /**
   * Amounts and sizes of a metric by module; the value of several is Σ amounts ÷ Σ sizes.
   * @param {State} state @returns {Metric}
   */
  metric(state) {
    const name = state.metric.replace(/_b$/, "");
    const about = this.metrics.find(({ key }) => key === name) ?? this.metrics[0];
    if (about.amount) return about;
    if (name !== state.metric) return this.ofOther(about, state);
    if (this.compares(state)) return this.difference(about, state);
    const counts = this.counts(state);
    const { of: { total }, more } = counts;
    // A selection may hold modules that the variant in view lacks, which are 0.
    const read = (name, c) => {
      const part = AMOUNTS[name] ?? ((f, { of }, i) => of[name][i]);
      return c && name && ((i) => (known(total[i]) ? part(this, c, i, state.layout) : 0));
    };
    const [first, second] = about.parts;
    const [amount, size, most] = [read(first, counts), read(second, counts), read(first, more)];
    return { ...about, amount, size, error: most && ((i) => Math.abs(most(i) - amount(i))) };
  }

  // A metric of side B, unknown where B lacks a module of A.
  ofOther({ key }, state) {
    const other = this.other(state);
    const metric = this.metric({ ...other, metric: key });
    const [a, b] = [state, other].map((side) => this.counts(side).of.total);
    const ofB = (value) => value && ((i) => (known(a[i]) ? (known(b[i]) ? value(i) : NaN) : 0));
    return { ...metric, amount: ofB(metric.amount), size: ofB(metric.size) };
  }

  // Sparsity of A − that of B, unknown where they have different numbers of weights.
  difference(about, state) {
    const [a, b] = ["sparsity", "sparsity_b"].map((metric) => this.metric({ ...state, metric }));
    const isSame = this.counts(state) === this.counts(this.other(state));
    const error = (i) => (isSame ? 0 : (a.error?.(i) ?? 0) + (b.error?.(i) ?? 0));
    return { ...about, amount: (i) => a.amount(i) - b.amount(i), error,
      size: (i) => (a.size(i) === b.size(i) ? a.size(i) : NaN) };
  }

  // Text of a metric over modules, with its largest error.
  write(metric, members) {
    return this.text.value(this.value(metric, members), metric.kind, this.error(metric, members));
  }

  // Text of the sparsities of both sides.
  sides(state, members) {
    const [a, b] = ["sparsity", "sparsity_b"].map((metric) =>
      this.write(this.metric({ ...state, metric }), members)
    );
    return this.text.say("sides", { a, b });
  }

  /** The value of a metric over modules; null if unknown. @param {Metric} metric */
  value({ amount, size, root, ofParts }, members) {
    // A figure of a part of the model has no mean over layers of several parts.
    if (ofParts && new Set(members.map(amount).filter(known)).size > 1) return null;
    let [sum, whole] = [0, 0];
    for (const i of members) {
      const part = size ? size(i) : 1;
      if (part === 0) continue;
      sum += amount(i);
      whole += part;
    }
    const value = certain(size ? (whole ? sum / whole : NaN) : sum);
    return root && value !== null ? Math.sqrt(value) : value;
  }

  /** The largest error of a metric of modules at a level. @param {Metric} metric */
  error({ error, size }, members) {
    const sum = (of) => members.reduce((all, i) => all + (of(i) || 0), 0);
    return error ? sum(error) / (size ? sum(size) : 1) || 0 : 0;
  }

  /**
   * The largest magnitude that one threshold for all layers prunes; null where there is none.
   * @param {State} state
   */
  threshold(state) {
    const level = this.levelOf(state);
    return (level ? level.policy.thresholds?.[level.k] : this.variant(state.variant).threshold)
      ?? null;
  }

  /**
   * Modules of a scope, in model order.
   * @param {string} name @param {State} state @returns {number[]}
   */
  scope(name, state) {
    const of = this.isPair ? null : this.counts(state).of;
    return this.once(`scope ${name} ${of?.name}`, () => {
      const prunable = of ? of.prunable : this.data.arrays[this.data.prunable];
      const { groups, blocks } = this.modules;
      const isNamed = (i) => groups[i] === name || `block ${blocks[i]}` === name;
      const inside = (i) => name === "all" || (name === "prunable" ? prunable[i] : isNamed(i));
      return this.all.filter((i) => (!of || known(of.total[i])) && inside(i));
    });
  }

  /**
   * The layer of the scope with the largest value of the metric; the first one of equals.
   * @param {State} state
   */
  extreme(state) {
    const metric = this.metric(state);
    const size = (i) => Math.abs(this.value(metric, [i]) ?? NaN);
    return ordered(this.scope(state.modules, state), size, false)[0] ?? -1;
  }

  /**
   * Modules of the scope whose names and labels contain all words of a search, with whole numbers.
   * @param {State} state
   */
  matching(state) {
    const { names, blocks, projections, groups } = this.modules;
    const inside = this.scope(state.modules, state);
    if (!state.search.trim()) return inside;
    const found = this.once(`search ${state.search}`, () => {
      const words = state.search.toLowerCase().match(/block\s+[0-9]+|\S+/g).map((word) =>
        new RegExp(WHOLE + word.replace(/\s+/, " ").replace(/\W/g, "\\$&") + WHOLE)
      );
      return names.map((name, i) => {
        const place = blocks[i] === null ? "" : `block ${blocks[i]} · ${projections[i]}`;
        const parts = [name, this.nameOf(i), this.data.labels.groups[groups[i]], place];
        const text = parts.join("\n").toLowerCase();
        return words.every((word) => word.test(text));
      });
    });
    return inside.filter((i) => found[i]);
  }

  /** The selected modules, or else those that match, in model order. @param {State} state */
  inView(state) {
    if (!state.selection.length) return this.matching(state);
    const selected = new Set(state.selection);
    return this.scope("all", state).filter((i) => selected.has(i));
  }

  /**
   * The measured score of the state beside dense, as texts; null where nothing was measured.
   * @param {State} state
   */
  score(state) {
    const { quality, baseline, scores } = this.data;
    const of = (place) => quality?.texts[place];
    const ofPolicy = scores?.filter(({ policy }) => policy === state.policy) ?? [];
    const at = (share) => ofPolicy.find(({ level }) => Math.abs(level - share) < SAME_LEVEL)?.text;
    const [measure, score, dense] = this.isLevel(state)
      ? [this.text.say("perplexity"), at(this.sums(state).share),
        at(this.variants[baseline]?.sparsity)]
      : [quality?.name, of(this.variants.indexOf(this.variant(state.variant))), of(baseline)];
    return score ? { measure, score, dense: dense ?? "–" } : null;
  }

  /**
   * Bytes of a module with its matrices in each layout, relative to dense or to the file.
   * @param {State} state @param {number} i
   */
  layouts(state, i) {
    const { of, left, slack, more } = this.counts(state);
    if (!of.prunable[i] || !known(of.pointers[i]) || !of.weightTotal[i]) return [];
    const size = (layout, counts) => certain(this.bytes(counts, i, layout));
    const [base, n] = [certain(of.base[i]), of.weightTotal[i]];
    const rows = ["dense", "csr", "bitmask"].map((key) => {
      const bytes = size(key, { of, left });
      const error = more ? size(key, more) - bytes : 0;
      return { key, bytes, fits: true, value: ratio(bytes, base), error: ratio(error, base) };
    });
    const level = this.levelOf(state);
    const pattern = level ? level.policy.patterns?.[level.k] : of.pattern;
    // Levels keep the zeros of the first variant. With less than half of zeros, none fits.
    const listed = this.data.twoFour?.[this.variants.indexOf(of)]?.includes(i);
    const isUnfit = pattern || 2 * (left[i] - (slack?.[i] ?? 0)) > n
      || (!level && listed === false);
    const fits = listed || /^[12]:[48]$/.test(pattern) || (isUnfit ? false : null);
    const bytes = Math.floor(n / 2) * of.value[i] + Math.ceil(n / 8) + of.rest[i];
    return [...rows, { key: "two_four", bytes, fits, value: ratio(bytes, base), error: 0 }];
  }

  // True if the smallest magnitudes of each matrix of the first model are zero.
  isMagnitude(state) {
    const { of, slack } = this.counts(state);
    return of.isFirst && (slack ? /magnitude/.test(state.policy) : of.isMagnitude);
  }

  /** Bars of the metric over the selection, by group, projection or block. @param {State} state */
  bars(state) {
    const metric = this.metric(state);
    const members = state.selection.length ? state.selection : this.scope(state.modules, state);
    const { groups, projections, blocks } = this.modules;
    const outside = this.text.say("outside");
    const names = { group: (i) => this.data.labels.groups[groups[i]] ?? groups[i],
      projection: (i) => projections[i], block: (i) => String(blocks[i] ?? outside) };
    const parts = grouped(members, names[state.grouping]);
    return parts.map(([label, part]) => ({ label, members: part,
      value: this.value(metric, part) })
    );
  }
}
