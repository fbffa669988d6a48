"""Charts as specifications for Vega-Lite, with their title, alternative text and theme."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from textwrap import wrap
from typing import Any

from sparsity_report.draw import export, theme
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import write_file
from sparsity_report.untrusted.display_text import clip

# Contents of a file by the end of its name.
_WRITERS: dict[str, Callable[[Mapping[str, Any]], str | bytes]] = {
    ".png": export.png,
    ".svg": export.svg,
    ".pdf": lambda chart: export.pdf(export.svg(chart)),
    ".json": json.dumps,
}
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
Rows = list[dict[str, Any]]


class VegaLite(dict[str, Any]):
    """A chart: a specification for Vega-Lite, which notebooks show and other tools edit."""

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the specification."""
        return deepcopy({**self})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the chart as PNG, SVG, PDF or JSON, chosen by the end of the file's name.

        Raises
        ------
        SparsityReportError
            If the file has another ending or cannot be written.
        """
        ending = Path(path).suffix.lower()
        if ending not in _WRITERS:
            raise SparsityReportError(
                f"{path}: a chart has no such format; end the name in {', '.join(_WRITERS)}"
            )
        return write_file(Path(path), _WRITERS[ending](self))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        kind = f"application/vnd.vegalite.v{export.VEGALITE.partition('.')[0]}+json"
        return {kind: self.to_dict(), "image/svg+xml": export.svg(self)}


def quantity(name: str, **options: Any) -> dict[str, Any]:
    """Return the encoding of a field of numbers."""
    return {"field": name, "type": "quantitative", **options}


def nominal(name: str, **options: Any) -> dict[str, Any]:
    """Return the encoding of a field of names."""
    return {"field": name, "type": "nominal", **options}


def layer(
    rows: Rows,
    mark: str,
    encoding: Mapping[str, Any],
    transform: Mapping[str, str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return a layer of a chart: rows, and a mark with its options and encoding."""
    steps = {"transform": [transform]} if transform else {}
    return {"data": rows, "mark": {"type": mark, **options}, "encoding": encoding, **steps}


def layered(layers: Sequence[Mapping[str, Any]], width: float, height: float) -> VegaLite:
    """Return a chart of layers, which holds the rows of several layers once."""
    rows = {id(layer["data"]): layer["data"] for layer in layers}
    names = {key: f"rows_{place}" for place, key in enumerate(rows)}
    data = {names[key]: values for key, values in rows.items()}
    drawn = [{**each, "data": {"name": names[id(each["data"])]}} for each in layers]
    chart = {"$schema": _SCHEMA, "datasets": data, "layer": drawn}
    return VegaLite(chart, width=width, height=height)


def titled(chart: VegaLite, heading: str, note: str, alt_text: str) -> VegaLite:
    """Return the chart with a title, a note in lines under it, and alternative text.

    Title and text are shortened. Its width includes everything, and its paper is white.
    """
    room = float(chart["width"]) - 8
    # A letter of a note is 0.44 of its size wide on average, and 0.5 where many are capitals.
    lines = wrap(note, int(room / (0.5 * theme.LABEL)))
    settings = theme.config()
    settings["title"] |= {"limit": room}
    return VegaLite(
        chart,
        title={"text": clip(heading, 100), **({"subtitle": lines} if lines else {})},
        description=clip(alt_text, 1500),
        autosize={"type": "fit-x", "contains": "padding"},
        background="white",
        config=settings,
    )
