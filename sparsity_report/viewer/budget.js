// Budgets of bytes, FLOPs or perplexity, as study/budget.py reads and solves the first two.
import { LAYOUTS } from "./figures.js";

const NUMBER = "(\\d+\\.?\\d*|\\.\\d+)";
const PERPLEXITY = new RegExp(`^(?:perplexity|ppl) ?${NUMBER}$`);
const SIZE = new RegExp(`^${NUMBER} ?([kmgtp]?)(i?)(b|bytes?|flops?)(?: per token)?$`);
const NAMED = ["dense", "file", "byte", "flop"];
const WORDS = "(?: ?(?:of|the|dense|model|file|bytes?|flops?))*";
const SHARE = new RegExp(`^${NUMBER} ?([x×%]?)(${WORDS})$`);
// Words of a share that do not contradict each other: FLOPs are not those of a file.
const CLEAR = /^((dense|file)? ?(byte)?|(dense )?(flop)?)$/;

// Return what a text allows at most, or null where it is no budget.
export function readBudget(text) {
  const plain = text.toLowerCase().replace(/(≤|<=|<|=|\bat most\b|\s)+/g, " ").trim();
  let match = PERPLEXITY.exec(plain);
  if (match) return { kind: "perplexity", most: Number(match[1]), base: null };
  match = SHARE.exec(plain);
  if (match) {
    const [, number, sign, words] = match;
    const most = Number(number) / (sign === "%" ? 100 : 1);
    const named = NAMED.filter((word) => words.includes(word)).join(" ");
    // A number above 1 without a sign is no factor.
    if ((sign || most <= 1) && CLEAR.test(named)) {
      const base = /dense|file/.exec(named)?.[0] ?? "";
      return { kind: named.endsWith("flop") ? "flops" : "bytes", most, base };
    }
  }
  match = SIZE.exec(plain);
  if (!match) return null;
  const [, number, prefix, binary, unit] = match;
  const size = Number(number)
    * (binary ? 1024 : 1000) ** ["", "k", "m", "g", "t", "p"].indexOf(prefix);
  return { kind: unit[0] === "f" ? "flops" : "bytes", most: size, base: null };
}

// Return a budget of 60 % of the bytes of the file, or of the dense ones.
export function example(figures) {
  const { base } = figures.sums({ variant: "", layout: "dense" });
  return base ? figures.text.scaled(Number((0.6 * base).toPrecision(2)), "B") : "60 %";
}

/**
 * Return a sentence, and the level of the policy in view that keeps a budget in the layout in view.
 * The levels of all layouts that keep bytes or FLOPs are in `places`.
 */
export function solve(figures, state, text) {
  const { text: words } = figures;
  const budget = readBudget(text);
  const policy = figures.policyOf(state);
  if (!budget) {
    const key = figures.data.scores?.length ? "budget_unread_score" : "budget_unread";
    return { text: words.say(key, { example: example(figures) }) };
  }
  if (!policy) return { text: words.say("no_levels") };
  const solution = budget.kind === "perplexity" ? byScore : byCost;
  return solution(figures, state, policy, budget);
}

function byCost(figures, state, policy, { kind, most: limit, base }) {
  const { text, data } = figures;
  const curve = (layout) => figures.curve({ ...state, layout, selection: [] });
  const [first] = curve("dense");
  const [of, whole] = kind === "flops"
    ? ["flops", first.flops]
    : data.packed && base !== "dense"
    ? ["file", first.base]
    : ["bytes", first.bytes];
  const [scale, unit] = [base === null ? 1 : whole, kind === "bytes" ? "B" : "FLOPs"];
  const write = (value) => base === null ? text.scaled(value, unit) : text.times(value);
  const costs = [state.layout, ...LAYOUTS.filter((key) => key !== state.layout)].map((layout) => {
    const levels = curve(layout);
    const bound = policy.most[kind === "bytes" ? layout : layout === "csr" ? "flops" : ""];
    return { layout, levels, most: bound ?? levels.map((at) => at[kind]) };
  });
  if (!scale || costs.some(({ most }) => most.includes(null))) {
    return { text: text.say("budget_unknown") };
  }
  const place = ({ layout, levels, most }, k) => {
    const { level, [kind]: cost } = levels[k];
    const [value, bound] = [write(cost / scale), write(most[k] / scale)];
    const words = { layout: text.say(`as_${layout}`), value: bound,
      level: k ? text.level(level) : text.say("unpruned") };
    const key = value === bound ? "budget_place" : "budget_place_by_bound";
    return { layout, level, cost, text: text.say(key, words) };
  };
  const places = costs.flatMap((one) => {
    const k = one.most.findIndex((cost) => cost / scale <= limit);
    return k < 0 ? [] : [place(one, k)];
  });
  const size = data.packed && kind === "bytes" ? first.base / scale : Infinity;
  const words = { value: write(size),
    limit: base === null ? write(limit) : text.say(`budget_of_${of}`, { limit: write(limit) }) };
  if (size <= limit) return { text: text.say("budget_file", words) };
  if (!places.length) {
    const least = costs.map((one) => place(one, one.most.indexOf(Math.min(...one.most))));
    words.least = least.sort((a, b) => a.cost - b.cost)[0].text;
    return { text: text.say("budget_out_of_reach", words) };
  }
  const [{ layout, level }] = places;
  if (layout === state.layout) return { level, places, text: text.say("budget_met", words) };
  words.layout = text.say(`as_${state.layout}`);
  return { places, text: text.say("budget_elsewhere", words) };
}

function byScore(figures, state, policy, budget) {
  const { text, data } = figures;
  const points = (data.scores ?? []).filter((one) => one.policy === policy.key);
  if (points.length < 2) return { text: text.say("budget_unmeasured") };
  const over = points.findIndex(({ value }) => value > budget.most);
  const last = points.at(over < 0 ? -1 : Math.max(0, over - 1));
  const words = { limit: String(budget.most), score: last.text,
    at: text.level(Math.round(1e3 * last.level) / 1e3) };
  if (over === 0) return { text: text.say("budget_score_out_of_reach", words) };
  const level = policy.levels.findLast((one) => one <= last.level + 1e-4);
  if (level === undefined) return { text: text.say("budget_unmeasured") };
  return { level, text: text.say("budget_score_met", words) };
}
