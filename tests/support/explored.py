"""What a person reads in an explorer, taken from its widgets, its HTML and its chart."""

import re
from html.parser import HTMLParser

_SPOKEN_ATTRIBUTES = {"alt", "title", "aria-label", "placeholder"}
_SPOKEN_KEYS = {"title", "text", "description"}
_SHOWN_FIELDS = {
    "text", "label", "tip", "line", "variant", "group", "block", "projection", "between",
}  # fmt: skip


class _Texts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.texts, self.silent = [], False

    def handle_starttag(self, tag, attributes):
        self.silent = tag == "style"
        self.texts += [text for key, text in attributes if key in _SPOKEN_ATTRIBUTES and text]

    def handle_endtag(self, _tag):
        self.silent = False

    def handle_data(self, text):
        if not self.silent and text.strip():
            self.texts.append(" ".join(text.split(" ")).strip(" \n"))


class _Tables(HTMLParser):
    """Tables as lists of rows of cells; a cell's note follows it in parentheses."""

    def __init__(self):
        super().__init__()
        self.tables, self.cell = [], None

    def handle_starttag(self, tag, _attributes):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"th", "td"}:
            self.cell = ""

    def handle_endtag(self, tag):
        if tag in {"th", "td"}:
            self.tables[-1][-1].append(self.cell.strip())
            self.cell = None

    def handle_data(self, text):
        if self.cell is not None:
            self.cell += text


def html_texts(html):
    """Every text of HTML that is read, spoken attributes included."""
    parser = _Texts()
    html = html.replace("<wbr>", "")
    parser.feed(re.sub(r'<span class="unbroken">(.*?)</span>', r"\1", html))
    return parser.texts


def html_tables(html):
    """Tables of HTML."""
    parser = _Tables()
    parser.feed(html)
    return parser.tables


def widgets(root):
    """A widget and all inside it."""
    yield root
    for child in getattr(root, "children", ()):
        yield from widgets(child)


def widget_texts(root):
    """Texts of widgets: descriptions, options, tooltips, HTML."""
    for widget in widgets(root):
        for trait in ("description", "placeholder", "tooltip", "name", "field", "hint", "lost"):
            # Zero-width is what ipywidgets put where there is no placeholder.
            text = (getattr(widget, trait, "") or "").strip("\u200b")
            if text:
                yield text
        yield from (option[0] for option in getattr(widget, "options", ()))
        yield from (text for _, text, _ in getattr(widget, "ticks", ()))
        yield from getattr(widget, "texts", ())
        if type(widget).__name__ == "HTML":
            yield from html_texts(widget.value)


def chart_texts(chart):
    """Texts of a chart: titles, alternative text, domains and labels of its data."""

    def walk(part):
        if isinstance(part, list):
            for one in part:
                yield from walk(one)
        if not isinstance(part, dict):
            return
        for key, value in part.items():
            if key in _SPOKEN_KEYS and isinstance(value, str):
                yield value
            elif key == "domain" and isinstance(value, list):
                yield from (one for one in value if isinstance(one, str))
            elif key != "datasets":
                yield from walk(value)

    spec = chart.to_dict(validate=False)
    yield from walk(spec)
    for rows in spec["datasets"].values():
        for row in rows:
            yield from (str(row[key]) for key in _SHOWN_FIELDS & set(row) if row[key] != "")


def check_slider_moves(page):
    """Check that an explorer in a page is alive: its kernel answers its slider."""
    page.locator(".sparsity-explorer svg.marks").wait_for(timeout=90_000)
    assert not page.locator(".sx-still").is_visible()
    page.locator(".sparsity-explorer .sx-range").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "document.querySelector('.sx-readout').value.startsWith('35')", timeout=30_000
    )
    page.locator(".sx-cards", has_text="35.0").wait_for()
