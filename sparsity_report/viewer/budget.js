// Budgets of bytes, FLOPs or perplexity, as study/budget.py reads and solves the first two.
import { ratio } from "./figures.js";

const NUMBER = "(\\d+(?:\\.\\d+)?)\\s*";
const PERPLEXITY = new RegExp(`^(?:perplexity|ppl)\\s*${NUMBER}$`);
const SHARE = new RegExp(`^${NUMBER}([x×%])\\s*(flops?|bytes?)$`);
const SIZE = new RegExp(`^${NUMBER}([kmgtp]?)(i?)(b|bytes?|flops?)$`);

// Return what a text allows at most, or null where it is no budget.
export function readBudget(text) {
  const plain = text.toLowerCase().replace(/≤|<=|<|=/g, " ").replace(/\s+/g, " ").trim();
  let match = PERPLEXITY.exec(plain);
  if (match) return { kind: "perplexity", most: Number(match[1]), relative: false };
  match = SHARE.exec(plain);
  if (match) {
    return { kind: match[3][0] === "f" ? "flops" : "bytes",
      most: Number(match[1]) / (match[2] === "%" ? 100 : 1), relative: true };
  }
  match = SIZE.exec(plain);
  if (!match) return null;
  const [, number, prefix, binary, unit] = match;
  const size = Number(number)
    * (binary ? 1024 : 1000) ** ["", "k", "m", "g", "t", "p"].indexOf(prefix);
  return { kind: unit[0] === "f" ? "flops" : "bytes", most: size, relative: false };
}

function write(text, { kind, relative }, value) {
  if (relative) return text.times(value);
  return kind === "perplexity"
    ? text.figures(value, 2)
    : text.scaled(value, kind === "bytes" ? "B" : "FLOPs");
}

// Return the level of the policy in view that keeps a budget, and a sentence; or only why not.
export function solve(figures, state, text) {
  const { text: words } = figures;
  const budget = readBudget(text);
  const policy = figures.policyOf(state);
  if (!budget) return { text: words.say("budget_unread") };
  if (!policy) return { text: words.say("no_levels") };
  const layout = words.say(`as_${state.layout}`);
  return budget.kind === "perplexity"
    ? byScore(figures, state, policy, budget)
    : byCost(figures, state, policy, budget, layout);
}

function byCost(figures, state, policy, budget, layout) {
  const { text } = figures;
  const levels = figures.curve({ ...state, selection: [] });
  const [cost, whole] = budget.kind === "bytes" ? ["bytes", "base"] : ["flops", "denseFlops"];
  const scale = budget.relative ? levels[0][whole] : 1;
  const most =
    policy.most[budget.kind === "flops" ? (state.layout === "csr" ? "flops" : "") : state.layout]
      ?? levels.map((level) => level[cost]);
  if (levels[0][whole] === null || most.some((value) => value === null)) {
    return { text: text.say("budget_unknown") };
  }
  const limit = write(text, budget, budget.most);
  const base = ratio(levels[0][whole], scale);
  if (base <= budget.most) {
    const words = { limit, value: write(text, budget, base) };
    // No layout in view is that of a file that packs the weights.
    const isShown = whole === "denseFlops" || !figures.data.packed;
    return { ...(isShown && { level: levels[0].level, dense: true }),
      text: text.say("budget_dense", words) };
  }
  const place = most.findIndex((value) => value / scale <= budget.most);
  if (place < 0) {
    const least = Math.min(...most);
    const at = text.level(levels[most.indexOf(least)].level);
    return {
      text: text.say("budget_out_of_reach", { limit, layout,
        least: write(text, budget, least / scale), at }),
    };
  }
  const value = levels[place][cost] / scale;
  const [written, bound] = [value, most[place] / scale].map((size) => write(text, budget, size));
  return { level: levels[place].level, value,
    text: text.say(written === bound ? "budget_met" : "budget_met_by_bound", {
      level: text.level(levels[place].level),
      layout,
      limit,
      value: bound,
    }) };
}

function byScore(figures, state, policy, budget) {
  const { text, data } = figures;
  const points = (data.scores ?? []).filter((one) => one.policy === policy.key);
  if (points.length < 2) return { text: text.say("budget_unmeasured") };
  const over = points.findIndex(({ value }) => value > budget.most);
  const limit = write(text, budget, budget.most);
  if (over === 0) {
    return {
      text: text.say("budget_score_out_of_reach", { limit, score: points[0].text,
        at: text.percent(points[0].level) }),
    };
  }
  const last = points[(over < 0 ? points.length : over) - 1];
  const below = policy.levels.filter((level) => level <= last.level + 1e-4);
  if (!below.length) return { text: text.say("budget_unmeasured") };
  const words = { level: text.level(below.at(-1)), limit, score: last.text,
    at: text.percent(last.level) };
  return { level: below.at(-1), text: text.say("budget_score_met", words) };
}
