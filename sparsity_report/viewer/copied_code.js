// Python statements and a command that make the study and the state in view again.

const literal = (value) => (value === null ? "None" : JSON.stringify(value));

// Return the position of the level of the policy in view; null while a variant is shown.
function levelOf(figures, state) {
  const policy = figures.isLevel(state) ? figures.policyOf(state) : null;
  return policy && [policy, figures.place(policy, state.sparsity)];
}

// Return statements that show a state again, with comments on what they omit.
export function code(figures, store, state) {
  const { data } = figures;
  const [now, first] = [store.traits(state), store.traits(store.first)];
  const level = levelOf(figures, state);
  const isRepeated = (name) => figures.variants.some((one) => one.name === name && one.isRepeated);
  const wanted = Object.keys(data.start).filter((name) => {
    if (name === "layout" || (level && name === "sparsity")) return true;
    const isKept = !["variant", "against"].includes(name) || isRepeated(now[name]);
    const isShown = level || !["policy", "sparsity"].includes(name);
    return isKept && isShown && JSON.stringify(now[name]) !== JSON.stringify(first[name]);
  });
  // Measurements are not repeated.
  const isMissing = (name) => now[name] === { metric: "sensitivity", curve: "quality" }[name];
  const lines = wanted.map((name) =>
    `    ${isMissing(name) ? "# not in this study: " : ""}${name}=${literal(now[name])},`
  );
  const exact = level ? ["", "# The level, exactly", `pruning = ${level[0].calls[level[1]]}`] : [];
  return [data.code, "explorer = sr.explore(study)", "explorer.select(", ...lines, ")", ...exact,
    "explorer", ""].join("\n");
}

// Return the command that writes a report of the pruning in view; null if there is none.
export function command(figures, state) {
  const level = levelOf(figures, state);
  const pruning = level ? level[0].commands[level[1]] : figures.variant(state.variant).command;
  const { command: opening } = figures.data;
  return opening && pruning && `${opening} ${pruning} --out results\n`;
}
