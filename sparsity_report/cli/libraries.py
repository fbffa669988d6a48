"""Late imports of libraries, and their warnings silenced."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Import libraries a fifth faster, without garbage collection."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def import_altair() -> None:
    """Import altair without what only other programs need of it."""
    # jsonschema builds a grammar of IRIs in 1.3 s if this optional package is installed. None in
    # sys.modules makes its import fail, in this process only.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    with without_collecting():
        import altair  # noqa: F401


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence warnings and progress bars of libraries."""
    import warnings

    from transformers.utils import logging

    from sparsity_report.weights.sources.checkpoint import without_bars

    logging.set_verbosity_error()
    with without_bars(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
