// Opens the viewers of a page, whose payload and script are attributes of their elements.
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

async function unpack(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// A notebook that is open has time to show the widget instead.
const patience = document.querySelector(".lm-Widget") ? 3000 : 0;

async function run(root, payload, script) {
  if (patience) await new Promise((done) => setTimeout(done, patience));
  if (patience && !root.checkVisibility()) return;
  if (!globalThis.sparsityViewer) {
    const [style, code] = (await unpack(script)).split("\0");
    for (const [tag, textContent] of [["style", style], ["script", code]]) {
      document.head.append(Object.assign(document.createElement(tag), { textContent }));
    }
  }
  await globalThis.sparsityViewer.mount(root, bytesOf(payload));
}

/** @type {NodeListOf<HTMLElement>} */
const roots = document.querySelectorAll(".sparsity-viewer[data-payload]");
for (const root of roots) {
  const { payload, script, damaged } = root.dataset;
  root.removeAttribute("data-payload");
  root.removeAttribute("data-script");
  run(root, payload, script).catch((error) => {
    root.textContent = damaged;
    root.title = String(error);
  });
}
