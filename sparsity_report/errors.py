"""The one exception of this package: what is wrong, where, why, and what to do, in one line."""

from collections.abc import Iterable


class SparsityReportError(ValueError):
    r"""Bad input or an impossible output; its message is a single line for people.

    Examples
    --------
    >>> str(SparsityReportError("no such file:\n  model.safetensors"))
    'no such file: model.safetensors'
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(printable(message).split()))


def printable(text: str, limit: int = 2000) -> str:
    r"""Make untrusted text safe for one line of a terminal: no control characters, not endless.

    Examples
    --------
    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    safe = "".join(
        c if c.isprintable() or c in "\n\t\u00a0\u202f" else c.encode("unicode_escape").decode()
        for c in text
    )
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def check_options(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a keyword that a function does not take.

    Examples
    --------
    >>> check_options("load", ["revison"], ["revision"])
    Traceback (most recent call last):
    sparsity_report.errors.SparsityReportError: load() takes revision, not 'revison'
    """
    if unknown := sorted(set(given).difference(known)):
        raise SparsityReportError(f"{function}() takes {', '.join(known)}, not {unknown[0]!r}")
