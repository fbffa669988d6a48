"""The one exception of this package: what is wrong, where, why, and what to do, in one line."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# How torch, the system and its loader say that there is no memory left, for a thread neither.
_NO_MEMORY = re.compile(
    r"(?i)(can't|cannot) allocate memory|(not enough|out of) memory|can't start new thread|"
    r"failed to map segment"
)


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


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, for which torch has no class of its own.

    Examples
    --------
    >>> ran_out(MemoryError()), ran_out(RuntimeError("not enough memory: you tried"))
    (True, True)
    >>> ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    said = isinstance(error, RuntimeError | OSError | ImportError) and _NO_MEMORY.search(str(error))
    return isinstance(error, MemoryError) or bool(said)


@contextmanager
def within_memory(what: str, instead: str) -> Iterator[None]:
    """Say in one line where memory ran out, and what to do instead.

    Examples
    --------
    >>> with within_memory("counting x", "use a larger machine"):
    ...     raise MemoryError
    Traceback (most recent call last):
    sparsity_report.errors.SparsityReportError: counting x: memory ran out; use a larger machine
    """
    try:
        yield
    except SparsityReportError:
        raise
    except Exception as error:
        if not ran_out(error):
            raise
        raise SparsityReportError(f"{what}: memory ran out; {instead}") from error
