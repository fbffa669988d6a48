// Every figure that the viewer shows, computed from the payload; each has one definition.
/** @import { Counts, Layout, Metric, Payload, Policy, State, Variant } from "./types" */
import { known, Text } from "./numbers.js";

export const AT_LEVEL = "at level";
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
const certain = (value) => (Number.isNaN(value) ? null : value);

// Divide and round half to even, exactly below 2^53.
function divided(numerator, divisor) {
  const quotient = Math.floor(numerator / divisor);
  const twice = 2 * (numerator - quotient * divisor);
  return twice > divisor || (twice === divisor && quotient % 2) ? quotient + 1 : quotient;
}

export class Figures {
  /** @param {Payload} data */
  constructor(data) {
    const { arrays, modules } = data;
    const filled = (one) => ({ ...one,
      ...Object.fromEntries(Object.entries(one.arrays ?? {}).map(([k, id]) => [k, arrays[id]])) });
    this.data = data;
    this.modules = modules;
    this.isPair = data.kind === "pair";
    this.text = new Text(data.words);
    this.size = modules.names.length;
    this.positions = new Map(modules.names.map((name, i) => [name, i]));
    /** @type {Variant[]} */
    this.variants = (data.variants ?? []).map(filled);
    /** @type {Policy[]} */
    this.policies = (data.policies ?? []).map((one) => this.policy(one, arrays));
    this.deviation = arrays[data.deviation] ?? new Float64Array(this.size).fill(NaN);
    /** @type {Metric[]} */
    this.metrics = data.metrics.map((one) => ({ ...one, amounts: arrays[one.amounts],
      sizes: arrays[one.sizes] })
    );
    if (data.histograms) {
      const { rows, top, heights } = data.histograms;
      this.histograms = { ...data.histograms, top: arrays[top], heights: arrays[heights] };
      this.places = new Map(Array.from(arrays[rows], (module, row) => [module, row]));
    }
    this.lower = modules.names.map((name) => name.toLowerCase());
    this.kept = new Map();
  }

  // Keep a value by key; the number of kept values is bounded.
  once(key, make) {
    if (!this.kept.has(key)) {
      if (this.kept.size > 400) this.kept.clear();
      this.kept.set(key, make());
    }
    return this.kept.get(key);
  }

  policy(one, arrays) {
    if (one.disabled) return one;
    return { ...one, rows: arrays[one.rows], left: arrays[one.left] };
  }

  /** @param {State} state */
  isLevel(state) {
    return state.variant === AT_LEVEL;
  }

  /** Return the policy of a state, or null. @param {State} state */
  policyOf(state) {
    return this.policies.find(({ key, disabled }) => key === state.policy && !disabled) ?? null;
  }

  /**
   * Return the place of the level nearest to a sparsity.
   * @param {Policy} policy @param {number} sparsity
   */
  place(policy, sparsity) {
    return policy.levels.reduce(
      (best, level, k) =>
        Math.abs(level - sparsity) < Math.abs(policy.levels[best] - sparsity) ? k : best,
      0,
    );
  }

  variant(name) {
    return this.variants.find((one) => one.name === name) ?? this.variants[0];
  }

  /**
   * Return nonzeros of all modules of the variant or level in view.
   * @param {State} state @returns {Counts}
   */
  counts(state) {
    if (!this.isLevel(state)) {
      const of = this.variant(state.variant);
      return this.once(`variant ${of.name}`,
        () => ({ of, left: of.weightNonzero, weights: of.weightTotal, nonzero: of.nonzero,
          slack: null }));
    }
    const policy = this.policyOf(state);
    return this.level(policy, this.place(policy, state.sparsity));
  }

  /** @param {Policy} policy @param {number} k @returns {Counts} */
  level(policy, k) {
    const of = this.variants[0];
    return this.once(`level ${policy.key} ${k}`, () => {
      const [left, slack] = [Float64Array.from(of.weightNonzero), new Float64Array(this.size)];
      policy.rows.forEach((i, row) => {
        left[i] = policy.left[row * policy.levels.length + k];
        slack[i] = Math.ceil(of.weightTotal[i] * policy.slack[k]);
      });
      const nonzero = left.map((count, i) => of.nonzero[i] - of.weightNonzero[i] + count);
      return { of, left, weights: of.weightTotal, nonzero, slack };
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
    return this.summed(this.counts(state), state.layout, members);
  }

  summed(counts, layout, members = null) {
    const { of, left, weights, slack } = counts;
    const sum = { zeros: 0, prunable: 0, bytes: 0, base: 0, flops: 0, denseFlops: 0, slack: 0 };
    const add = (i) => {
      if (Number.isNaN(of.total[i])) return;
      if (of.prunable[i]) {
        sum.zeros += weights[i] - left[i];
        sum.prunable += weights[i];
      }
      sum.bytes += this.bytes(counts, i, layout);
      sum.base += of.base[i];
      sum.flops += this.flops(counts, i, layout);
      sum.denseFlops += this.flops(counts, i, "dense");
      if (slack) sum.slack = Math.max(sum.slack, slack[i]);
    };
    if (members) members.forEach(add);
    else for (let i = 0; i < this.size; i += 1) add(i);
    for (const key of Object.keys(sum)) sum[key] = certain(sum[key]);
    const { zeros, prunable, bytes, base, flops, denseFlops } = sum;
    return { ...sum, share: ratio(zeros, prunable), ratio: ratio(bytes, base),
      flopsRatio: ratio(flops, denseFlops) };
  }

  /** Sums at every level of a policy. @param {State} state */
  curve(state) {
    const policy = this.policyOf(state);
    if (!policy) return [];
    const members = state.selection.length ? state.selection : null;
    return this.once(`curve ${policy.key} ${state.layout} ${state.selection}`,
      () =>
        policy.levels.map((level, k) => ({ level,
          ...this.summed(this.level(policy, k), state.layout, members) })
        ));
  }

  // The sparsity from which a layout is smaller than dense or the file; null if it never is.
  breakEven(layout, members = null, of = this.variants[this.data.baseline] ?? this.variants[0]) {
    if (layout === "dense" || !of) return null;
    const all = [...(members ?? this.modules.names.keys())].filter((i) => known(of.total[i]));
    const total = (size) => all.reduce((sum, i) => sum + size(i), 0);
    const bytes = (left) => total((i) => this.bytes({ of, left }, i, layout));
    const [base, full, empty] = [total((i) => of.base[i]), bytes(of.weightTotal),
      bytes(new Float64Array(this.size))];
    return full > empty && empty < base ? Math.max(0, (full - base) / (full - empty)) : null;
  }

  // Text of the name of a layer.
  nameOf(i) {
    return this.modules.shown?.[i] ?? this.modules.names[i];
  }

  // Name of a layer without what the names of all layers in blocks begin with.
  short(i) {
    const name = this.nameOf(i);
    return name.startsWith(this.prefix) ? name.slice(this.prefix.length) : name;
  }

  get prefix() {
    return this.once("prefix", () => {
      const names = this.modules.names.filter((_, i) => this.modules.blocks[i] !== null);
      const [first, last] = [names.reduce((a, b) => (a < b ? a : b), names[0] ?? ""),
        names.reduce((a, b) => (a > b ? a : b), "")];
      const same = [...first].findIndex((letter, k) => letter !== last[k]);
      return first.slice(0, first.lastIndexOf(".", same < 0 ? first.length : same) + 1);
    });
  }

  /**
   * Amounts and sizes of a metric by module; the value of several is Σ amounts ÷ Σ sizes.
   * @param {State} state @returns {Metric}
   */
  metric(state) {
    const about = this.metrics.find(({ key }) => key === state.metric) ?? this.metrics[0];
    if (about.amounts) return about;
    const counts = this.counts(state);
    const key = [about.key, state.variant, state.policy, state.sparsity, state.layout,
      state.against].join(" ");
    return this.once(key, () => {
      const [amount, size] = about.key === "difference"
        ? this.difference(state)
        : about.parts.map((name) => AMOUNTS[name] ?? ((f, c, i) => c.of[name][i]));
      // A selection may hold modules that the variant in view lacks.
      const part = (of, i) => (known(counts.of.total[i]) ? of(this, counts, i, state.layout) : 0);
      const array = (of) => of && Float64Array.from({ length: this.size }, (_, i) => part(of, i));
      return { ...about, amounts: array(amount), sizes: array(size) };
    });
  }

  /** Amounts and sizes of the difference from another variant. @param {State} state */
  difference(state) {
    const weights = (c, i) => (c.of.prunable[i] ? c.weights[i] : 0);
    const other = this.counts({ ...state, variant: state.against });
    return [(f, c, i) => (weights(c, i) ? other.left[i] - c.left[i] : 0),
      (f, c, i) => (weights(c, i) === weights(other, i) ? weights(c, i) : NaN)];
  }

  /** The value of a metric over modules; null if unknown. @param {Metric} metric */
  value({ amounts, sizes, root, ofParts }, members) {
    // A figure of a part of the model has no mean over layers of several parts.
    if (ofParts && new Set(members.map((i) => amounts[i]).filter(known)).size > 1) return null;
    let [amount, size] = [0, 0];
    for (const i of members) {
      if (sizes && !sizes[i] && !Number.isNaN(sizes[i])) continue;
      amount += amounts[i];
      size += sizes ? sizes[i] : 0;
    }
    const value = certain(sizes ? (size ? amount / size : NaN) : amount);
    return root && value !== null ? Math.sqrt(value) : value;
  }

  /**
   * The largest magnitude that one threshold for all layers prunes; null where there is none.
   * @param {State} state
   */
  threshold(state) {
    if (!this.isLevel(state)) return this.variant(state.variant).threshold ?? null;
    const policy = this.policyOf(state);
    return policy?.thresholds?.[this.place(policy, state.sparsity)] ?? null;
  }

  /**
   * Modules of a scope, in model order.
   * @param {string} name @param {State} state @returns {number[]}
   */
  scope(name, state) {
    return this.once(`scope ${name} ${this.isPair || this.counts(state).of.name}`, () => {
      const of = this.isPair ? null : this.counts(state).of;
      const prunable = of ? of.prunable : this.data.arrays[this.data.prunable];
      const inside = (i) =>
        name === "all" || (name === "prunable" ? prunable[i] : this.modules.groups[i] === name);
      return [...this.modules.names.keys()].filter((i) => (!of || known(of.total[i])) && inside(i));
    });
  }

  /**
   * The layer of the scope with the largest value of the metric; the first one of equals.
   * @param {State} state
   */
  extreme(state) {
    const metric = this.metric(state);
    let [best, most] = [-1, -Infinity];
    for (const i of this.scope(state.modules, state)) {
      const value = Math.abs(this.value(metric, [i]) ?? -1);
      if (value > most || best < 0) [best, most] = [i, value];
    }
    return best;
  }

  /** Modules whose names contain all words of a search. @param {State} state */
  matching(state) {
    const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    return this.scope(state.modules, state).filter((i) =>
      words.every((word) => this.lower[i].includes(word))
    );
  }

  /**
   * The measured score of the state beside dense, as texts; null where nothing was measured.
   * @param {State} state
   */
  score(state) {
    const { quality, baseline } = this.data;
    if (!this.isLevel(state)) {
      const of = (place) => quality?.points.find(({ variants }) => variants.includes(place))?.text;
      const score = of(this.variants.findIndex(({ name }) => name === state.variant));
      return score ? { measure: quality.name, score, dense: of(baseline) ?? "–" } : null;
    }
    const at = (share) =>
      this.data.scores.find(({ level, policy }) =>
        policy === state.policy && Math.abs(level - share) < SAME_LEVEL
      )?.text;
    const score = at(this.sums(state).share);
    return score
      ? { measure: this.text.say("perplexity"), score,
        dense: at(this.variants[baseline].sparsity) ?? "–" }
      : null;
  }

  /**
   * Bytes of a module's matrices in each layout, relative to dense or to the file.
   * @param {State} state @param {number} i
   */
  layouts(state, i) {
    const counts = this.counts(state);
    const { of, left, slack } = counts;
    if (!of.prunable[i] || !known(of.pointers[i]) || !of.weightTotal[i]) return [];
    const size = (layout) => certain(this.bytes({ of, left }, i, layout) - of.rest[i]);
    const [base, n] = [certain(of.base[i] - of.rest[i]), of.weightTotal[i]];
    const rows = ["dense", "csr", "bitmask"].map((key) => ({ key, bytes: size(key), fits: true }));
    const policy = this.isLevel(state) ? this.policyOf(state) : null;
    const pattern = policy?.patterns?.[this.place(policy, state.sparsity)] ?? "";
    // Levels keep the zeros of the first variant. With less than half of zeros, none fits.
    const listed = this.data.twoFour?.[this.variants.indexOf(of)]?.includes(i);
    const isUnfit = pattern || 2 * (left[i] - (slack?.[i] ?? 0)) > n
      || (!policy && listed === false);
    const fits = listed || /^[12]:[48]$/.test(pattern) || (isUnfit ? false : null);
    rows.push({ key: "two_four", bytes: Math.floor(n / 2) * of.value[i] + Math.ceil(n / 8), fits });
    return rows.map((row) => ({ ...row, ratio: ratio(row.bytes, base) }));
  }

  /**
   * Share of zeros that two variants have in common: exact for magnitude pruning, else a range.
   * @param {State} state @param {number[]} members
   */
  overlap(state, members) {
    const [one, other] = [this.counts(state), this.counts({ ...state, variant: state.against })];
    const nested = (c) =>
      c.of.isFirst && (c.slack ? /magnitude/.test(state.policy) : c.of.isMagnitude);
    let [least, most, all] = [0, 0, 0];
    for (const i of members) {
      const n = one.weights[i];
      if (!n || !one.of.prunable[i]) continue;
      const [a, b] = [n - one.left[i], n - other.left[i]];
      if (other.weights[i] !== n || Number.isNaN(a + b)) return null;
      const common = Math.min(a, b);
      least += one === other || (nested(one) && nested(other)) ? common : Math.max(0, a + b - n);
      most += common;
      all += n;
    }
    return all ? { least: least / all, most: most / all } : null;
  }

  /** Bars of the metric over the selection, by group, projection or block. @param {State} state */
  bars(state) {
    const metric = this.metric(state);
    const members = state.selection.length ? state.selection : this.scope(state.modules, state);
    const name =
      { group: (i) => this.data.labels.groups[this.modules.groups[i]] ?? this.modules.groups[i],
        projection: (i) => this.modules.projections[i],
        block: (i) =>
          this.modules.blocks[i] === null
            ? this.text.say("outside")
            : String(this.modules.blocks[i]) }[state.grouping];
    const parts = new Map();
    for (const i of members) {
      if (!parts.has(name(i))) parts.set(name(i), []);
      parts.get(name(i)).push(i);
    }
    return [...parts].map(([label, part]) => ({ label, value: this.value(metric, part),
      members: part })
    );
  }
}
