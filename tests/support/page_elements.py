"""Elements and texts of HTML."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Elements of a page with their attributes and texts; each has to be closed."""

    VOID = frozenset({"meta", "br", "wbr", "link", "img", "input"})

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.scripts = [], [], []
        self.texts = {}
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        opened, _ = self.open.pop()
        assert opened == tag

    def handle_data(self, data):
        for _, place in self.open:
            self.texts[place] = self.texts.get(place, "") + data

    def all(self, tag, **attrs):
        """Pairs of attributes and text of the elements of one kind."""
        return [
            (found, self.texts.get(place, ""))
            for place, (name, found) in enumerate(self.elements)
            if name == tag and all(found.get(k) == v for k, v in attrs.items())
        ]

    @property
    def text(self):
        return self.texts[0]
