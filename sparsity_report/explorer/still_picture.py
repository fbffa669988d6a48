"""The still picture of an explorer's last state, for a notebook without a kernel."""

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

# Width of the picture, and most cells with numbers.
WIDTH, NUMBERED = 940, 100
# Most cells of which a notebook holds all levels, for the page to which it is exported.
_SLIDING = 400
# Seconds without a change before the picture is drawn again.
_REST = 1.5


def picture(spec: Mapping[str, Any]) -> str:
    """Return a chart as a PNG in base64."""
    check_room()
    drawn = vl_convert.vegalite_to_png(
        dict(spec), vl_version=VEGALITE, scale=1, allowed_base_urls=[]
    )
    return base64.b64encode(opaque(drawn)).decode()


def sliding(study: Comparison, cells: int) -> tuple[Any, str | None]:
    """Return the slider of the page to which a notebook is exported, and its compressed chart.

    Few notebooks are exported, and gzip leaves a tenth of the bytes.
    """
    moving = _slider(study, spoken().code) if cells <= _SLIDING else None
    if not moving:
        return None, None
    text = f"[{moving['spec']},{moving['texts']}]"
    return moving, base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@lru_cache(maxsize=2)
def _slider(study: Comparison, _language: str) -> dict[str, Any] | None:
    """Return the slider of a study, which does not depend on the state."""
    return slider(study)


class Still:
    """A display below the widget that follows its changes.

    Parameters
    ----------
    bundle : callable
        Function that returns the picture by MIME type.
    key : str
        Key of the explorer.
    """

    def __init__(self, bundle: Callable[[], dict[str, str]], key: str) -> None:
        self._bundle, self._name = bundle, f"sparsity-explorer-{key}"
        self._displayed = False
        self._waiting: asyncio.TimerHandle | None = None

    def display(self) -> None:
        """Show the picture in the running cell."""
        self._displayed = True
        display(self._bundle(), raw=True, display_id=self._name)  # type: ignore[no-untyped-call]

    def follow(self) -> None:
        """Draw the picture again once the changes have ended, if it is displayed."""
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
