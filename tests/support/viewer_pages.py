"""How tests open a viewer alone in Chromium and use it."""

from browser import drawn

from sparsity_report.viewer.embed import digests, embed

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Viewer</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:;
style-src 'unsafe-inline'; script-src {digests}">
<style>:root {{ color-scheme: light dark }}</style></head><body><main><h1>A viewer</h1>{fragment}
</main></body></html>"""


class Page:
    """A page with one viewer, what it fetches and what it complains about."""

    def __init__(self, browser, folder, payload, width=1440, **options):
        path = folder / "viewer.html"
        path.write_text(PAGE.format(digests=" ".join(digests()), fragment=embed(payload, "still")))
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, accept_downloads=True, **options
        )
        self._page = self.context.new_page()
        self.requests, self.complaints = [], []
        self._page.on("request", lambda request: self.requests.append(request.url))
        self._page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self._page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self._page.on("console", lambda line: self.complaints.append(line.text))
        self._page.goto(path.as_uri())
        self.page.locator(".sparsity-viewer :is(.sv-map, .sv-sentence)").first.wait_for()
        self.page.wait_for_timeout(100)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    @property
    def page(self):
        """The page after the animation frame that draws what has changed."""
        return drawn(self._page)

    def run(self, code):
        """Evaluate code in which `viewer` is the viewer."""
        return self.page.evaluate(
            f"(() => {{ const {{ viewer }} = document.querySelector('.sparsity-viewer');"
            f" return {code}; }})()"
        )

    def set(self, **traits):
        self.page.evaluate(
            "traits => document.querySelector('.sparsity-viewer').viewer.set(traits)", traits
        )

    @property
    def state(self):
        return self.run("viewer.state")

    @property
    def sentence(self):
        return self.page.locator(".sv-sentence").inner_text()

    def rows(self):
        """Texts of the rows that are drawn."""
        found = self.page.locator(".sv-row").all()
        return [row.locator("> div").all_inner_texts() for row in found]

    def download(self, choice):
        """A file that the menu of files saves."""
        self.page.locator(".sv-files > button").click()
        with self.page.expect_download() as waiting:
            self.page.locator(f'.sv-files [value="{choice}"]').click()
        return waiting.value
