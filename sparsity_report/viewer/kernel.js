// The widget of a notebook: a viewer whose state a kernel shares.
import { make } from "./elements.js";
import { mount } from "./viewer.js";

const asBytes = (view) =>
  new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);

// Return the values that differ from others.
function changes(state, others) {
  const isChanged = ([name, value]) => JSON.stringify(value) !== JSON.stringify(others[name]);
  return Object.fromEntries(Object.entries(state).filter(isChanged));
}

export async function render({ model, el }) {
  const root = make("div", { className: `sparsity-viewer sv-live-${model.get("key")}` });
  el.append(root);
  let viewer = null;
  // The state on which page and kernel last agreed. Only differences from it are passed on: the
  // page may not know yet what the kernel has changed, and must not take it back.
  let agreed = {};
  const read = () => {
    const state = { ...model.get("state") };
    delete state.changed;
    return state;
  };
  // Opening data takes time; later messages wait until it is done.
  let last = Promise.resolve();
  const inTurn = (act) => (...values) => {
    const run = () => act(...values);
    last = last.then(run, run);
    return last;
  };
  const kernel = { send: (message) => model.send(message), share(state) {
    const shared = Object.entries(state).filter(([name]) => name in agreed);
    const changed = changes(Object.fromEntries(shared), agreed);
    agreed = { ...agreed, ...changed };
    const names = Object.keys(changed);
    if (!names.length) return;
    model.set("state", { ...read(), ...changed, changed: names });
    model.save_changes();
  } };
  const show = inTurn(async () => {
    const start = read();
    viewer = await mount(root, asBytes(model.get("payload")), { start, kernel });
    agreed = start;
  });
  const apply = inTurn(() => {
    const changed = changes(read(), agreed);
    agreed = { ...agreed, ...changed };
    if (!viewer || !Object.keys(changed).length) return;
    viewer.store.restore({ ...viewer.store.state, ...viewer.store.internal(changed) });
  });
  const events = { "change:state": apply, "change:payload": show,
    "msg:custom": inTurn((message) => viewer?.answer(message)) };
  for (const [name, act] of Object.entries(events)) model.on(name, act);
  await show();
  return () => {
    for (const [name, act] of Object.entries(events)) model.off(name, act);
    viewer?.close();
  };
}
