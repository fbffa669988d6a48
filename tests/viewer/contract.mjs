// Answers for the contract test: figures of states of payloads, and their texts.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , script, payload, cases] = process.argv;
const { default: { Figures, Store, open, readBudget, solve } } = await import(pathToFileURL(script));
const figures = new Figures(await open(readFileSync(payload)));
const { text } = figures;
const plain = (value) => (Number.isNaN(value) ? null : value);

const answers = JSON.parse(readFileSync(cases)).map(({ state, changes, metrics, budgets, read, values }) => {
  const store = new Store(figures, figures.data.start);
  const before = store.traits();
  store.set(store.internal(changes));
  clearTimeout(store.timer);
  const counts = figures.counts(state);
  const members = state.selection.length ? state.selection : null;
  const sums = figures.sums(state, members);
  const inside = members ?? figures.scope(state.modules, state);
  return {
    left: Array.from(counts.left, plain),
    levels: figures.policyOf(state)?.levels ?? [],
    nonzero: Array.from(counts.nonzero, plain),
    bytes: figures.modules.names.map((_, i) => plain(figures.bytes(counts, i, state.layout))),
    flops: figures.modules.names.map((_, i) => plain(figures.flops(counts, i, state.layout))),
    sums,
    curve: figures.curve(state).map(({ zeros, bytes, flops }) => [zeros, bytes, flops]),
    metrics: Object.fromEntries(metrics.map((metric) => [metric, figures.value(figures.metric({ ...state, metric }), inside)])),
    layouts: Object.fromEntries(figures.layouts(state, state.detail).map(({ key, bytes }) => [key, bytes])),
    fits: figures.layouts(state, state.detail).at(-1)?.fits,
    scope: figures.scope(state.modules, state),
    extreme: figures.extreme({ ...state, metric: "sparsity" }),
    inView: figures.inView(state).map((i) => figures.modules.names[i]),
    read: read.map(readBudget),
    errors: figures.modules.names.map((_, i) => figures.error(figures.metric({ ...state, metric: "nonzero" }), [i])),
    budgets: budgets.map((budget) => solve(figures, state, budget)),
    texts: values.map((value) => [text.percent(value), text.percent(value, 2), text.points(value), text.times(value), text.level(value), text.scaled(value * 1e9, "B"), text.scaled(value * 1e5), text.count(Math.round(value * 1e7)), text.value(value - 0.4, "nats")]),
    before,
    after: store.traits(),
    written: [text.percent(sums.share), text.scaled(sums.bytes, "B"), text.times(sums.ratio)],
  };
});
process.stdout.write(JSON.stringify(answers));
