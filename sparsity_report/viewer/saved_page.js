// The view as a page: one file that opens offline in the state in view.
const POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src";
const BODY = "max-width: 1180px; margin: 24px auto; padding: 0 16px; font-family: sans-serif";

const escaped = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

/**
 * Return the page as text; without scripts it shows a map as SVG.
 * @param {any} viewer
 * @param {string} map
 */
export function savedPage({ controls, data, store }, map) {
  const { payload, source: [style, code] } = data;
  const [title, sentence] = [data.title, controls.sentence.textContent].map(escaped);
  const nonce = crypto.getRandomValues(new Uint32Array(4)).join("");
  const bytes = btoa(Array.from(payload, (byte) => String.fromCharCode(byte)).join(""));
  const start = JSON.stringify(store.traits()).replaceAll("<", "\\u003c");
  return `<!DOCTYPE html>
<html lang="en" style="color-scheme: light dark"><head><meta charset="utf-8"><title>${title}</title>
<meta http-equiv="Content-Security-Policy" content="${POLICY} 'nonce-${nonce}'">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>${style}</style></head>
<body style="${BODY}"><h1>${title}</h1><div class="sparsity-viewer"><p>${sentence}</p>${map}</div>
<script nonce="${nonce}">${code}</script><script nonce="${nonce}">sparsityViewer.mount(
document.querySelector(".sparsity-viewer"), Uint8Array.from(atob("${bytes}"), (letter) =>
letter.charCodeAt(0)), { start: ${start}, source: ["style", "script"].map((tag) =>
document.querySelector(tag).textContent) });</script></body></html>
`;
}
