"""The viewer's script and style, joined from their source files."""

import base64
import gzip
import re
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
# Source files in the order in which each uses only those before it.
FILES = (
    "numbers.js", "data.js", "figures.js", "budget.js", "state.js", "pictures.js", "map.js",
    "table.js", "details.js", "viewer.js",
)  # fmt: skip
_IMPORT = re.compile(r'^import .* from "\./\w+\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(async )?(const|class|function)\b)", re.MULTILINE)
_EXPORTS = re.compile(r"^export .*\n", re.MULTILINE)
_COMMENT = re.compile(r"^ *//.*\n", re.MULTILINE)

_PACKED = """\
const bytes = Uint8Array.from(atob("%"), (letter) => letter.charCodeAt(0));
const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
const code = new Blob([await new Response(stream).text()], { type: "text/javascript" });
const url = URL.createObjectURL(code);
const viewer = await import(url);
URL.revokeObjectURL(url);
export default viewer.default;
"""


@cache
def script() -> str:
    """Return the viewer as one ES module."""
    parts = [(_HERE / name).read_text(encoding="utf-8") for name in FILES]
    return "\n".join(_COMMENT.sub("", _EXPORT.sub("", _IMPORT.sub("", part))) for part in parts)


@cache
def classic_script() -> str:
    """Return the viewer as a script that defines ``sparsityViewer`` in the page."""
    body = _EXPORTS.sub("", script())
    return f'"use strict";\n{{\n{body}\nglobalThis.sparsityViewer = {{ mount }};\n}}\n'


@cache
def packed_module() -> str:
    """Return :func:`script` as a module that unpacks itself, a third of its size."""
    packed = base64.b64encode(gzip.compress(script().encode(), 9, mtime=0)).decode()
    return _PACKED.replace("%", packed)


@cache
def style() -> str:
    """Return the viewer's style sheet."""
    return (_HERE / "viewer.css").read_text(encoding="utf-8")
