"""The viewer as a fragment of HTML that needs no kernel and fetches nothing."""

import base64
import gzip
import hashlib
import html
from functools import cache

from sparsity_report.viewer.scripts import fragment_script, style, viewer_script
from sparsity_report.words.sentences import say

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
        From :mod:`.study_payload`.
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
        f"<script>{fragment_script()}</script>"
    )


def digests() -> tuple[str, ...]:
    """Return the digests of the fragment's scripts for a Content-Security-Policy."""
    return tuple(_digest(text) for text in (fragment_script(), viewer_script()))


@cache
def _packed() -> str:
    text = f"{style()}\0{viewer_script()}".encode()
    return base64.b64encode(gzip.compress(text, 9, mtime=0)).decode()


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
