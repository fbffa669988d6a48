"""Search that keeps patterns such as 2:4 and N:M in one piece.

Sphinx splits text at each colon and drops bare numbers, so that ``2:4`` has no results and ``N:M``
has those of two letters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sphinx.search.en import SearchEnglish

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

_TERM = r"(?:[0-9]+|[A-Za-z])"
_PATTERN = rf"{_TERM}(?::{_TERM})+"


class PatternSearch(SearchEnglish):
    """English search for patterns and for words of at least two characters."""

    _word_re = re.compile(rf"(?<!\w){_PATTERN}(?!\w)|\w{{2,}}")

    # The same expression: \w of Python in the terms of JavaScript.
    js_splitter_code = rf"""
function splitQuery(query) {{
  const word = "[\\p{{Letter}}\\p{{Number}}_\\p{{Emoji_Presentation}}]";
  const pattern = `(?<!${{word}}){_PATTERN}(?!${{word}})|${{word}}{{2,}}`;
  return query.match(new RegExp(pattern, "gu")) || [];
}}
"""


def setup(app: Sphinx) -> ExtensionMetadata:
    """Replace the English search."""
    app.add_search_language(PatternSearch)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
