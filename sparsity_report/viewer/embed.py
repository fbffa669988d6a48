"""The viewer as a fragment of HTML that needs no kernel and fetches nothing."""

import base64
import gzip
import hashlib
import html
from functools import cache

from sparsity_report.viewer.module import classic_script, style
from sparsity_report.words.sentences import say

# Constant, so that a policy of the page may name its digest.
_BOOTSTRAP = """\
(() => {
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  // A notebook that is open has time to show the widget instead.
  const patience = document.querySelector(".lm-Widget") ? 3000 : 0;
  for (const root of document.querySelectorAll(".sparsity-viewer[data-payload]")) {
    const { payload, script, damaged } = root.dataset;
    root.removeAttribute("data-payload");
    root.removeAttribute("data-script");
    const run = async () => {
      if (patience) await new Promise((done) => setTimeout(done, patience));
      if (patience && !root.checkVisibility()) return;
      if (!globalThis.sparsityViewer) {
        const [style, code] = (await unpack(script)).split("\\0");
        for (const [tag, textContent] of [["style", style], ["script", code]]) {
          document.head.append(Object.assign(document.createElement(tag), { textContent }));
        }
      }
      const bytes = Uint8Array.from(atob(payload), (letter) => letter.charCodeAt(0));
      await globalThis.sparsityViewer.mount(root, bytes);
    };
    run().catch((error) => { root.textContent = damaged; root.title = String(error); });
  }
})();
"""

# Hides the fragment beside a widget that is shown, and the message of one that is not.
_HIDING = (
    "<style>body:has(.sv-live-%) .sv-page-% { display: none !important; }\n"
    ".jp-OutputArea-child:has(+ .jp-OutputArea-child .sv-page-%):not(:has(.sv-live-%)) "
    "{ display: none; }</style>"
)


def embed(payload: bytes, still: str = "", key: str = "") -> str:
    """Return the viewer of a payload as HTML.

    Parameters
    ----------
    payload : bytes
        From :mod:`.study_payload` or :mod:`.pair_payload`.
    still : str
        HTML in place of the viewer where scripts do not run.
    key : str
        Key of an explorer, whose widget hides the fragment where it is shown.
    """
    damaged = html.escape(say("viewer.damaged"))
    data = base64.b64encode(payload).decode()
    hiding = _HIDING.replace("%", key) if key else ""
    return (
        f'{hiding}<div class="sparsity-viewer sv-page-{key}" data-payload="{data}" '
        f'data-script="{_packed()}" data-damaged="{damaged}">{still}</div>'
        f"<script>{_BOOTSTRAP}</script>"
    )


def digests() -> tuple[str, ...]:
    """Return the digests of the fragment's scripts for a Content-Security-Policy."""
    return tuple(_digest(text) for text in (_BOOTSTRAP, classic_script()))


@cache
def _packed() -> str:
    text = f"{style()}\0{classic_script()}".encode()
    return base64.b64encode(gzip.compress(text, 9, mtime=0)).decode()


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
