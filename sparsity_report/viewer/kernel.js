// The widget of a notebook: a viewer whose state a kernel shares.
import { make } from "./elements.js";
import { historyOf, mount } from "./viewer.js";

// States of a kernel after which it knows no widget of before.
const ENDS = ["autorestarting", "dead", "restarting", "terminating"];

// Values beside the state: the names of those changed last, their id, and the last one answered.
const ABOUT = ["changed", "id", "answered"];

const asBytes = (view) =>
  new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);

// Return the values that differ from others of the same names.
function changes(state, others) {
  const isChanged = ([name, value]) =>
    name in others && JSON.stringify(value) !== JSON.stringify(others[name]);
  return Object.fromEntries(Object.entries(state).filter(isChanged));
}

export async function render({ model, el }) {
  const root = make("div", { className: `sparsity-viewer sv-live-${model.get("key")}` });
  el.append(root);
  let viewer = null;
  let isThere = true;
  // The state on which page and kernel last agreed. Only differences from it are passed on: the
  // page may not know yet what the kernel has changed, and must not take it back.
  let agreed = {};
  // The last state that a view sent, and earlier values of what the views have sent: a state that
  // the kernel sent before it knew of this still has them.
  const sent = historyOf(model.get("key")).sent ??= { id: "", before: {} };
  const isShared = (entry) => !ABOUT.includes(entry[0]);
  const read = () => Object.fromEntries(Object.entries(model.get("state")).filter(isShared));
  // Opening data takes time; later messages wait until it is done.
  let last = Promise.resolve();
  const inTurn = (act) => (...values) => {
    const run = () => act(...values);
    last = last.then(run, run);
    return last;
  };
  // Questions to the kernel that wait for their answers; other views see these, too.
  const asked = new Map();
  const ask = (message) =>
    new Promise((act) => {
      const id = String(Math.random());
      asked.set(id, act);
      model.send({ ...message, id });
    });
  const share = (state) => {
    const changed = changes(state, agreed);
    const names = Object.keys(changed);
    if (!names.length) return;
    sent.id = String(Math.random());
    for (const name of names) (sent.before[name] ??= []).push(JSON.stringify(agreed[name]));
    agreed = { ...agreed, ...changed };
    model.set("state", { ...read(), ...changed, changed: names, id: sent.id });
    if (isThere) model.save_changes();
  };
  let payload = null;
  const open = async () => {
    viewer?.store.rest();
    payload = model.get("payload");
    const start = read();
    const panel = viewer && { panel: viewer.store.state.panel };
    const script = model.get("_esm")?.replace(/\bexport default .*/, "");
    const source = script && [model.get("_css"), script];
    viewer = await mount(root, asBytes(payload), { start: { ...start, ...panel },
      kernel: isThere ? { ask, share } : null, source, key: model.get("key") });
    agreed = start;
  };
  const show = inTurn(open);
  const apply = inTurn(() => {
    const { answered, id } = model.get("state");
    if (answered === sent.id) sent.before = {};
    // A state of a payload that is still to be opened is shown with it.
    if (payload !== model.get("payload")) return;
    const isNew = ([name, value]) => id || !sent.before[name]?.includes(JSON.stringify(value));
    const changed = Object.fromEntries(Object.entries(changes(read(), agreed)).filter(isNew));
    agreed = { ...agreed, ...changed };
    if (!viewer || !Object.keys(changed).length) return;
    viewer.store.receive(changed);
  });
  const answer = inTurn((message, buffers) => {
    if (!message.id) viewer?.tools.tell(message.text, null, "kernel");
    asked.get(message.id)?.({ ...message, data: buffers?.[0] });
    asked.delete(message.id);
  });
  const events = { "change:state": apply, "change:payload": show, "msg:custom": answer };
  for (const [name, act] of Object.entries(events)) model.on(name, act);
  await show();
  // Without its kernel, the viewer is that of a page.
  const lose = inTurn(async () => {
    if (!isThere) return;
    isThere = false;
    await open();
    const text = viewer?.text.say("kernel_ended");
    viewer?.tools.tell(text, [], "kernel");
    for (const act of asked.values()) act({ type: "error", text });
  });
  // JupyterLab and Notebook tell about the kernel.
  const session = model.widget_manager?.context?.sessionContext;
  const follow = (_, status) => ENDS.includes(status) && lose();
  session?.statusChanged.connect(follow);
  session?.kernelChanged.connect(lose);
  if (session) follow(session, session.session?.kernel?.status ?? "dead");
  return () => {
    session?.statusChanged.disconnect(follow);
    session?.kernelChanged.disconnect(lose);
    for (const [name, act] of Object.entries(events)) model.off(name, act);
    viewer?.close();
  };
}
