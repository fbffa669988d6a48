"""Names of columns, groups, methods, layouts and other raw values as readers know them.

The catalogue holds a name under the family and the raw value, such as ``group.mlp_linear``. A value
without a name there is shown as it is.
"""

import hashlib
from functools import cache

from sparsity_report.files.package_data import DEMO
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.catalogue import catalogue
from sparsity_report.words.number_format import count


def display_name(family: str, value: str) -> str:
    """Return the name of a raw value, or the value itself if the catalogue has none.

    Parameters
    ----------
    family : str
        ``group``, ``layout``, ``method``, ``kind``, ``alignment`` or ``cache``.
    value : str

    Examples
    --------
    >>> display_name("cache", "out of cache"), display_name("group", "my rule")
    ('from memory', 'my rule')
    """
    return catalogue().get(f"{family}.{value}", value)


def group_name(group: str) -> str:
    """Return the name of a group.

    Examples
    --------
    >>> group_name("attention_linear"), group_name("my rule")
    ('attention', 'my rule')
    """
    return display_name("group", group)


def part_name(by: str, part: str) -> str:
    """Return the name of a group, block or layer that was pruned alone.

    Examples
    --------
    >>> part_name("group", "mlp_linear"), part_name("layer", "mlp_linear")
    ('MLP', 'mlp_linear')
    >>> part_name("block", "block 3"), part_name("block", "")
    ('block 3', 'outside blocks')
    """
    if by == "block":
        number = part.removeprefix("block ")
        key = "name.numbered_block" if number.isdigit() else "name.outside_blocks"
        return catalogue()[key].format(block=number)
    return group_name(part) if by == "group" else part


def method_name(method: str) -> str:
    """Return the name of a pruning method, without commas; other text as it is.

    Examples
    --------
    >>> method_name("global_magnitude"), method_name("2:4"), method_name("random, seed 3")
    ('global magnitude', '2:4', 'random with seed 3')
    """
    policy, *settings = method.split(", ")
    if f"method.{policy}" not in catalogue():
        return method
    return " with ".join(display_name("method", part) for part in (policy, *settings))


def text_name(text: str, fingerprint: str, tokens: int | None = None) -> str:
    r"""Return the name of a scored text: what the packaged one is, else its file and its tokens.

    Examples
    --------
    >>> text_name("eval.txt", "0123456789abcdef", 4138).replace("\u202f", " ")
    'eval.txt (4 138 tokens)'
    """
    packaged, size = _packaged_text()
    if fingerprint == packaged:
        name = catalogue()["name.packaged_text"]
        return name.format(size=f"{size / 1000:.0f}")
    if tokens is None:
        return short_name(text)
    return catalogue()["name.text_tokens"].format(text=short_name(text), tokens=count(tokens))


@cache
def _packaged_text() -> tuple[str, int]:
    """Return the fingerprint of the packaged text, and its bytes."""
    data = (DEMO / "eval.txt").read_bytes()
    text = data.decode().replace("\r\n", "\n")
    return hashlib.sha256(text.encode()).hexdigest()[:16], len(data)


def layout_name(layout: str) -> str:
    """Return the name of a storage layout.

    Examples
    --------
    >>> layout_name("csr_int32"), layout_name("bsr_16")
    ('CSR with int32 indices', 'BSR 16 × 16')
    """
    if layout.startswith("bsr_"):
        side = layout.removeprefix("bsr_")
        return f"BSR {side} × {side}"
    return display_name("layout", layout)


def head(name: str) -> str:
    """Return the label of a column, or the words of its name if it has none.

    Examples
    --------
    >>> head("stored_bytes"), head("own_figure")
    ('Stored bytes', 'Own figure')
    """
    text = catalogue().get(f"column.{name}", name.replace("_", " "))
    return text[:1].upper() + text[1:]
