"""Extract the font of reports from Liberation Sans and write it as WOFF2.

Liberation is a reserved font name, so the subset has another name. Needs fonttools and brotli:

    python docs/tools/subset_fonts.py /usr/share/fonts/truetype/liberation
"""

import sys
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

OUT = Path(__file__).resolve().parents[2] / "sparsity_report" / "draw" / "typeface"
FAMILY = "Sparsity Sans"
CHARACTERS = (
    "20-7E,A0-17F,192,218-21B,2C6-2C9,2D8-2DD,384-3FF,"  # Latin, Greek
    "2002-200B,2010-2015,2018-201E,2020-2022,2026,202F,2030,2032,2033,2039,203A,2044,2070-209C,"
    "20AC,2122,2126,2190-2195,2202-222B,2248,2260-2265,25A0-25CF"  # arrows, mathematics, marks
)


def cut(source: Path, style: str = "Regular") -> None:
    """Write the subset of one style."""
    font = TTFont(source / f"LiberationSans-{style}.ttf")
    options = subset.Options()
    options.hinting = False
    options.layout_features = ["kern", "liga", "ccmp", "mark", "mkmk", "locl"]
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 13, 14]
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=subset.parse_unicodes(CHARACTERS))
    subsetter.subset(font)
    named = {
        1: FAMILY,
        3: f"{FAMILY} {style}",
        4: f"{FAMILY} {style}",
        6: f"{FAMILY} {style}".replace(" ", "-"),
    }
    for record in font["name"].names:
        record.string = named.get(record.nameID, record.toUnicode())
    font.flavor = "woff2"
    font.save(OUT / f"sparsity-sans-{style.lower()}.woff2")


if __name__ == "__main__":
    cut(Path(sys.argv[1]))
