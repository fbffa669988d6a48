"""A heat map of shares as a small SVG without a chart library: block by projection."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import escape

from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.number_format import percent

# Width without names; greatest height and width of a cell; height without a scale; height of a
# row from which rows have names.
_WIDTH, _HIGH, _WIDE, _MAPPED, _NAMED = 420, 16, 24, 240, 9
# Viridis at ten even steps, as in Matplotlib, and the number of colours drawn.
_VIRIDIS = (
    "440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b",
    "fde725",
)  # fmt: skip
_COLOURS = 24


class ShareMap(NamedTuple):
    """Shares of 1 by block and projection, one per cell."""

    title: str
    blocks: Sequence[str]
    projections: Sequence[str]
    cells: Sequence[tuple[str, str, float]]


def draw_map(shares: ShareMap, domain: tuple[float, float]) -> str:
    """Return a figure with a map; cells of one colour are one path of strokes.

    Parameters
    ----------
    shares : ShareMap
    domain : tuple of float
        Shares at the ends of the colour scale.
    """
    columns, rows = len(shares.blocks), len(shares.projections)
    high = max(3, min(_HIGH, _MAPPED // rows))
    wide = max(2, min(_WIDE, _WIDTH // columns))
    named = [clip(name, 18) for name in shares.projections] if high >= _NAMED else []
    left = 6 + 6 * max(map(len, named), default=0)
    x = {block: place for place, block in enumerate(shares.blocks)}
    y = {projection: place for place, projection in enumerate(shares.projections)}
    strokes: dict[int, list[str]] = {}
    low, top = domain
    for block, projection, share in shares.cells:
        step = round((_COLOURS - 1) * (share - low) / (top - low))
        strokes.setdefault(step, []).append(f"M{x[block]} {y[projection]}h1")
    paths = "".join(
        f'<path stroke="{_colour(step)}" d="{"".join(lines)}"/>'
        for step, lines in sorted(strokes.items())
    )
    middle = f"translate({left} {high / 2:g}) scale({wide} {high})"
    texts = [
        f'<text x="{left - 4}" y="{(place + 0.5) * high + 3.5:g}" text-anchor="end">'
        f"{escape(name)}</text>"
        for place, name in enumerate(named)
    ]
    bottom, width = rows * high + 12, left + columns * wide
    texts.append(f'<text x="{left}" y="{bottom}">{escape(shares.blocks[0])}</text>')
    if columns > 1:
        texts.append(
            f'<text x="{width}" y="{bottom}" text-anchor="end">{escape(shares.blocks[-1])}</text>'
        )
    scale = "".join(f'<path stroke="{_colour(step)}" d="M{step} 0h1"/>' for step in range(_COLOURS))
    ends = [escape(percent(end, 0)) for end in domain]
    key = (
        f'<g stroke-width="8" transform="translate({left + 34} {bottom + 12}) scale(3 1)" '
        f'shape-rendering="crispEdges">{scale}</g>'
        f'<text x="{left}" y="{bottom + 16}">{ends[0]}</text>'
        f'<text x="{left + 38 + 3 * _COLOURS}" y="{bottom + 16}">{ends[1]}</text>'
    )
    width, height = max(width, left + 150), bottom + 20
    title = escape(shares.title)
    return (
        f'<figure><p class="soft">{title}</p>'
        f'<svg role="img" aria-label="{title}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><g transform="{middle}" stroke-width="1" '
        f'shape-rendering="crispEdges">{paths}</g>{"".join(texts)}{key}</svg></figure>'
    )


def _colour(step: int) -> str:
    """Return a colour of viridis between its anchors."""
    place = step / (_COLOURS - 1) * (len(_VIRIDIS) - 1)
    first = min(int(place), len(_VIRIDIS) - 2)
    sides = (bytes.fromhex(_VIRIDIS[at]) for at in (first, first + 1))
    mixed = (round(a + (b - a) * (place - first)) for a, b in zip(*sides, strict=True))
    return "#" + bytes(mixed).hex()
