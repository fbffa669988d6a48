// Python statements and a command that make the study and the state in view again.
import { AT_LEVEL, SIDES } from "./figures.js";

const literal = (value) => (value === null ? "None" : JSON.stringify(value));

// Return statements that show a state again, with comments on what they omit.
export function code(figures, store, state) {
  const { data } = figures;
  const [now, first] = [store.traits(state), store.traits(store.history.first)];
  const level = figures.levelOf(state);
  const isChanged = (name) => JSON.stringify(now[name]) !== JSON.stringify(first[name]);
  // The study of the copy may lack variants and open on others, so that both sides are named.
  const wanted = Object.keys(data.start).filter((name) => {
    const side = SIDES.find((keys) => keys.includes(name));
    const isShown = side === SIDES[0] || figures.compares(state) || side?.some(isChanged);
    if (!side) return isChanged(name) || name === "layout" || name === "metric";
    return isShown && (now[side[0]] === AT_LEVEL) !== (name === side[0]);
  });
  const isLeftOut = (name) =>
    figures.variants.some((one) => one.name === now[name] && !one.isRepeated);
  // Measurements are not repeated.
  const isMissing = (name) => now[name] === "sensitivity" || isLeftOut(name);
  const lines = wanted.map((name) =>
    `    ${isMissing(name) ? "# not in this study: " : ""}${name}=${literal(now[name])},`
  );
  const exact = level
    ? ["", "# The level, exactly", `pruning = ${level.policy.calls[level.k]}`]
    : [];
  return [data.code, "explorer = sr.explore(study)", "explorer.select(", ...lines, ")", ...exact,
    "explorer", ""].join("\n");
}

// Return the command that writes a report of the pruning in view; null if there is none.
export function command(figures, state) {
  const level = figures.levelOf(state);
  if (figures.compares(state)) return null;
  const pruning = level ? level.policy.commands[level.k] : figures.variant(state.variant).command;
  const { command: opening } = figures.data;
  return opening && pruning && `${opening} ${pruning} --out results\n`;
}
