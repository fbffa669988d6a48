"""The still picture of an explorer, for where no kernel answers: of what was shown last."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import vl_convert
from IPython.display import display, update_display

from sparsity_report.draw.png_size import opaque
from sparsity_report.draw.vega import VEGALITE, check_room
from sparsity_report.report.level_slider_page import slider
from sparsity_report.study.comparison import Comparison
from sparsity_report.words.languages import spoken

# Of the picture: its width, and cells up to which it has their numbers.
WIDTH, NUMBERED = 940, 100
# Cells up to which a notebook holds all levels, too, for the page that it is exported to.
_SLIDING = 400
# Seconds without a change after which a picture is drawn anew.
_REST = 1.5


def picture(spec: Mapping[str, Any]) -> str:
    """Return a chart as a PNG in base64."""
    check_room()
    drawn = vl_convert.vegalite_to_png(
        dict(spec), vl_version=VEGALITE, scale=1, allowed_base_urls=[]
    )
    return base64.b64encode(opaque(drawn)).decode()


def sliding(study: Comparison, cells: int) -> tuple[Any, str | None]:
    """Return the slider of a page that a notebook is exported to, and its chart packed.

    Notebooks are kept and few are exported: gzip leaves a tenth.
    """
    moving = _slider(study, spoken().code) if cells <= _SLIDING else None
    if not moving:
        return None, None
    text = f"[{moving['spec']},{moving['texts']}]"
    return moving, base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@lru_cache(maxsize=2)
def _slider(study: Comparison, _language: str) -> dict[str, Any] | None:
    """Keep the slider of a study, which stays while the picture follows what is shown."""
    return slider(study)


class Still:
    """A display beside the widget that follows it, once it has come to rest.

    Parameters
    ----------
    bundle : callable
        Returns what is displayed.
    key : str
        Tells it from those of other explorers.
    """

    def __init__(self, bundle: Callable[[], dict[str, str]], key: str) -> None:
        self._bundle, self._name = bundle, f"sparsity-explorer-{key}"
        self._displayed = False
        self._waiting: asyncio.TimerHandle | None = None

    def display(self) -> None:
        """Show it in the cell that is run."""
        self._displayed = True
        display(self._bundle(), raw=True, display_id=self._name)  # type: ignore[no-untyped-call]

    def follow(self) -> None:
        """Draw it anew when nothing changes any more, if it is displayed."""
        if not self._displayed:
            return
        if self._waiting is not None:
            self._waiting.cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a script: nothing follows
            return
        self._waiting = loop.call_later(_REST, self._renew)

    def _renew(self) -> None:
        self._waiting = None
        update_display(self._bundle(), raw=True, display_id=self._name)  # type: ignore[no-untyped-call]
