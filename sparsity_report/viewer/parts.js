// Heads of the layer in detail and experts of its block, as squares to choose from.
import { make } from "./elements.js";
import { grouped, ratio } from "./figures.js";
import { known } from "./numbers.js";
import { colorOf } from "./pictures.js";

const BLOCK = /^(?:.*?\.)?\d+\./;
const EXPERT = /^(.*experts)\.(?:expert_)?(\d+)(?=\.|$)/;
const FUSED = /qkv|query_key_value|c_attn|in_proj/i;
const OF_KEYS = /(^|[._])(k|v|key|value)(_proj|_lin)?$/;

/**
 * Return what is known of the heads and fused experts of a module of the variant in view.
 * @param {import("./figures.js").Figures} figures @param {import("./types").State} state
 */
export function inside(figures, state, i) {
  const place = figures.variants.indexOf(figures.counts(state).of);
  const [zeros, heads] = [figures.data.inner?.[place]?.[i], figures.data.heads?.[place]?.[i]];
  const has = heads !== undefined || Boolean(zeros?.heads?.length || zeros?.experts?.length);
  return { place, zeros: figures.isLevel(state) ? null : zeros, has,
    heads: zeros?.heads?.length || heads || 0 };
}

// True for experts and their router, whose panel shows the experts of their block.
function hasExperts(figures, state, i) {
  const { groups, names } = figures.modules;
  return groups[i] === "router" || EXPERT.test(names[i])
    || inside(figures, state, i).zeros?.experts?.length > 0;
}

// Return the modules of the block of a module; of one outside blocks, itself.
function blockOf(figures, i) {
  const { names } = figures.modules;
  const [block] = names[i].match(BLOCK) ?? [];
  return block
    ? figures.once(`of ${block}`, () => figures.all.filter((k) => names[k].startsWith(block)))
    : [i];
}

/**
 * Return the module whose heads or experts are not counted yet: itself, or the experts of a router.
 * @param {import("./figures.js").Figures} figures @param {import("./types").State} state
 */
export function uncounted(figures, state, i) {
  const near = figures.modules.groups[i] === "router" ? blockOf(figures, i) : [i];
  return near.find((k) => {
    const { has, zeros } = inside(figures, state, k);
    return has && !zeros;
  });
}

// Let the kernel count the zeros of the heads or experts of the layer in detail, once.
export async function count(viewer) {
  const { data, figures, kernel, store: { state } } = viewer;
  if (!kernel || figures.isPair || state.detail < 0 || figures.isLevel(state)) return;
  const i = uncounted(figures, state, state.detail);
  if (i === undefined) return;
  const { place } = inside(figures, state, i);
  const counted = (data.inner ??= {})[place] ??= {};
  counted[i] = { reason: figures.text.say("parts_asked") };
  const answer = await kernel.ask({ type: "inner", variant: state.variant,
    module: figures.modules.names[i] });
  counted[i] = answer.inner ?? { reason: answer.text };
  viewer.seen.delete(viewer.panel);
  if (!viewer.ended.signal.aborted) viewer.redraw();
}

// Return the kind of the heads of a module, by its name and the heads of the others of its block.
function kindOf(figures, state, i) {
  const isOfKeys = (k) => OF_KEYS.test(figures.modules.names[k]);
  const { heads } = inside(figures, state, i);
  const others = blockOf(figures, i).filter((k) => !isOfKeys(k));
  const queries = others.map((k) => inside(figures, state, k).heads).filter(Boolean);
  if (isOfKeys(i)) return heads < Math.min(...queries) ? "kv_head" : "head";
  const isOne = heads === Math.min(...queries) && !FUSED.test(figures.modules.names[i]);
  return isOne ? "head" : "head_part";
}

/**
 * Return heads and experts by kind, each with the share of its weights that is zero.
 * @param {import("./figures.js").Figures} figures @param {import("./types").State} state
 */
export function parts(figures, state, i) {
  const { of, left, weights, slack } = figures.counts(state);
  const zerosOf = (k) => inside(figures, state, k).zeros;
  const equal = (k, shares = []) =>
    shares.map((share, number) => ({ number, share, weights: weights[k] / shares.length }));
  const block = hasExperts(figures, state, i) ? blockOf(figures, i) : [i];
  const heads = { kind: kindOf(figures, state, i), key: i, items: equal(i, zerosOf(i)?.heads) };
  const expert = (key, items, members) => ({ kind: "expert", key, items, members });
  const fused = block.map((k) => expert(k, equal(k, zerosOf(k)?.experts), [k]));
  // Experts of several modules each.
  const nameOf = (k) => figures.modules.names[k].match(EXPERT) ?? [];
  const inExperts = block.filter((k) => nameOf(k).length && known(of.total[k]) && weights[k]);
  const experts = grouped(inExperts, (k) => nameOf(k)[0]).map(([, members]) => {
    const sum = (array) => members.reduce((all, k) => all + array[k], 0);
    const [[, stack, number], all] = [nameOf(members[0]), sum(weights)];
    return { stack, number, members, weights: all, share: ratio(all - sum(left), all),
      slack: slack ? sum(slack) : 0 };
  });
  const stacks = grouped(experts, ({ stack }) => stack).map(([key, items]) =>
    expert(key, items, items.flatMap(({ members }) => members))
  );
  return [heads, ...fused, ...stacks].filter(({ items }) => items.length > 1);
}

// Sentence on the size of one expert and the number that a token uses; empty without experts.
function expertSize(figures, state, shown) {
  const [{ text }, { of }] = [figures, figures.counts(state)];
  const experts = shown.filter(({ kind }) => kind === "expert");
  const [items, count] = [experts.flatMap((one) => one.items), experts[0]?.items.length];
  if (items.length !== experts.length * count) return "";
  const [parameters, bytes] = [of.total, of.base].map((sizes) =>
    experts.flatMap((one) => one.members).reduce((all, k) => all + sizes[k], 0) / count
  );
  const [k] = experts[0].members;
  const used = count * of.usesTop[k] / of.usesBottom[k];
  return text.say("expert_size", { parameters: text.count(Math.round(parameters)),
    bytes: text.scaled(bytes, "B"), bits: text.figures(8 * bytes / parameters, 2) })
    + (used < count ? ` ${text.say("experts_used", { used, count })}` : "");
}

/**
 * Return elements that show the parts of the layer in detail.
 * @param {import("./figures.js").Figures} figures @param {import("./types").State} state
 * @param {string} chosen
 */
export function squares(figures, state, chosen, choose) {
  const { text } = figures;
  const side = figures.compares(state) ? "A, " : "";
  const shown = parts(figures, state, state.detail);
  const strips = shown.flatMap(({ kind, key, items }) => {
    const name = `${figures.id} ${key}`;
    const sentence = ({ number, share, weights, slack }) =>
      side
      + text.say(slack ? "part_zeros_within" : "part_zeros", { share: text.percent(share),
        weights: text.count(weights), slack: text.count(slack),
        part: text.say(`part_${kind}`, { number }) });
    const isChosen = ({ number, members }) =>
      members ? members.includes(state.detail) : chosen === `${name} ${number}`;
    const now = items.find(isChosen);
    const radios = items.map((item) =>
      make("input", { type: "radio", name, defaultChecked: item === now, title: sentence(item),
        ariaLabel: sentence(item), attributes: { style: `background: ${colorOf(item.share)}` },
        on: { change: () => choose(`${name} ${item.number}`, item.members) } })
    );
    const title = text.say(`parts_${kind}`);
    const shares = items.map(({ share }) => share);
    const dead = items.filter(({ share }) => share === 1).map(({ number }) => number);
    const [least, most] = [Math.min(...shares), Math.max(...shares)].map((x) => text.percent(x));
    const spread = least === most ? "parts_equal" : "parts_range";
    const range = { parts: title, count: items.length, least, most };
    const lines = [now ? sentence(now) : side + text.say(spread, range),
      dead.length ? text.say("parts_dead", { parts: title, numbers: dead.join(", ") }) : ""];
    return [make("div", { className: "sv-parts", role: "radiogroup", ariaLabel: title }, ...radios),
      make("p", { textContent: lines.join(" ") })];
  });
  const textContent = expertSize(figures, state, shown);
  return textContent ? [...strips, make("p", { textContent })] : strips;
}
