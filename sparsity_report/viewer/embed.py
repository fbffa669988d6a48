"""The viewer's scripts and style, and the viewer as HTML that needs no kernel and fetches nothing.

The scripts are bundles of the JavaScript files beside this one: ``npm run build`` writes them into
``bundle/``.
"""

import base64
import gzip
import html
import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
# Hides the fragment beside a widget that is shown, and the message of one that is not.
_HIDING = (
    "<style>body:not(:has(.jp-OutputArea)):has(.sv-live-%) .sv-page-%,\n"
    ".jp-OutputArea:has(.sv-live-%) .sv-page-% { display: none !important; }\n"
    ".jp-OutputArea-child:has(+ .jp-OutputArea-child .sv-page-%):not(:has(.sv-live-%)) "
    "{ display: none; }\n"
    ".jp-OutputArea-child:has(.sv-state-%) { display: none; }</style>"
)


@cache
def asset(name: str) -> str:
    """Return a script or style sheet of the viewer.

    ``bundle/viewer.js`` defines ``sparsityViewer`` in the page, ``bundle/fragment.js`` opens the
    viewers of a page, and ``bundle/page.js`` is the script of reports.
    """
    return (_HERE / name).read_text(encoding="utf-8")


def widget_module() -> str:
    """Return the viewer as the ES module of a widget."""
    return asset("bundle/viewer.js") + asset("widget.js")


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
    data = base64.b64encode(payload).decode()
    names = f'class="sparsity-viewer sv-page-{key}" data-key="{key}"'
    hiding = _HIDING.replace("%", key) if key else ""
    return (
        f'{hiding}<div {names} data-payload="{data}" data-script="{_packed()}">{still}</div>'
        f"<script>{asset('bundle/fragment.js')}</script>"
    )


def embed_state(state: Mapping[str, Any], key: str) -> str:
    """Return the state of an explorer as hidden HTML, which the viewer beside it starts with."""
    text = html.escape(json.dumps(state, separators=(",", ":"), allow_nan=False))
    return f'<div class="sv-state-{key}" data-state="{text}" hidden></div>'


def digests() -> tuple[str, ...]:
    """Return the digests of the fragment's scripts for a Content-Security-Policy."""
    texts = (asset(f"bundle/{name}.js").encode() for name in ("fragment", "viewer"))
    return tuple(f"'sha256-{base64.b64encode(sha256(text).digest()).decode()}'" for text in texts)


@cache
def _packed() -> str:
    text = f"{asset('viewer.css')}\0{asset('bundle/viewer.js')}".encode()
    return base64.b64encode(gzip.compress(text, 9, mtime=0)).decode()
