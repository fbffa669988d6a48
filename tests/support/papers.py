"""Looking at PDF files with poppler, and studies to fill them with."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
from helpers import need
from measurements import put_in, quality, seven, with_losses

import sparsity_report as sr
from sparsity_report.words.sentences import say


def poppler(tool, path, *options):
    """Return the output of a poppler tool that finds no error in a file."""
    need(shutil.which(tool) is not None, f"{tool}: apt-get install poppler-utils")
    where = [path, "-"] if tool == "pdftotext" else [path]
    run = subprocess.run([tool, *options, *where], capture_output=True, check=True)
    assert b"Error" not in run.stderr
    return run.stdout.decode(errors="replace")  # titles in UTF-16


def facts(path):
    """What pdfinfo says, by name."""
    lines = poppler("pdfinfo", path).splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def head(key):
    """The head of a column by its key of the catalogue."""
    text = say(key)
    return text[:1].upper() + text[1:]


def bare(text):
    """Text without the spaces and line ends that setting it may move."""
    return re.sub(r"\s", "", text)


def text_of(path):
    return bare(poppler("pdftotext", path, "-layout"))


def fonts(path):
    """Name and whether it is embedded, of every font."""
    rows = poppler("pdffonts", path).splitlines()[2:]
    return {row.split()[0]: row.split()[-5] == "yes" for row in rows}


def images(path):
    return poppler("pdfimages", path, "-list").splitlines()[2:]


def eight_variants(weights):
    """One model at four levels and by two policies."""
    at = {share: sr.global_magnitude(weights, share) for share in (0.1, 0.3, 0.5, 0.9)}
    return sr.compare(
        sr.dense(weights), *(sr.masked(pruning) for pruning in at.values()), sr.csr(at[0.3]),
        sr.csr(at[0.9]), sr.masked(sr.n_m(weights, 2, 4), name="TwoFour"),
    )  # fmt: skip


def nine_prunings(weights):
    """Three policies at three levels with perplexities and zero-shot scores; the last guesses."""
    policies = {
        "": sr.global_magnitude,
        "Layerwise": sr.layerwise_magnitude,
        "Random": sr.random_unstructured,
    }
    masked = [
        sr.masked(prune(weights, share), name=f"Masked{100 * share:.0f}{name}")
        for name, prune in policies.items() for share in (0.3, 0.5, 0.7)
    ]  # fmt: skip
    study = sr.compare(sr.dense(weights), *masked)
    names, shares = list(study.variants["variant"]), study.totals["sparsity_prunable"]
    noise = np.random.default_rng(0).normal(size=(10, 128)) / 4
    nats = np.array([2, 2.1, 2.3, 3, 2.1, 2.2, 2.9, 2.5, 4, 20])[:, None] + noise
    scores = with_losses(quality([(share, 1.0) for share in shares], names), 16 * nats)
    tasks = pd.concat([seven(n, f"some/{n}", place / 100) for place, n in enumerate(names)])
    return put_in(study, quality=scores, tasks=tasks)


def largest_gaps(path):
    """By page, the largest share of its height between two words below each other."""
    pages = re.split("<page ", poppler("pdftotext", path, "-bbox"))[1:]
    for page in pages:
        height = float(re.search(r'height="([\d.]+)"', page)[1])
        places = re.findall(r'yMin="([\d.]+)" xMax="[\d.]+" yMax="([\d.]+)"', page)
        low, gap = 0.0, 0.0
        for top, foot in sorted((float(a) / height, float(b) / height) for a, b in places):
            low, gap = max(low, foot), max(gap, top - low)
        yield gap


class Tables(HTMLParser):
    """Every table of a page: its caption, its heads, and its rows as text, as they stand there."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tables, self.cell, self.head, self.skipping = [], None, False, 0
        self.feed(text)

    def handle_starttag(self, tag, _):
        if tag == "table":
            self.tables.append({"caption": "", "heads": [], "rows": []})
        elif tag == "thead":
            self.head = True
        elif tag == "tbody":
            self.head = False
        elif tag == "tr":
            self.tables[-1]["heads" if self.head else "rows"].append([])
        elif tag in {"th", "td"}:
            self.cell = {"text": ""}
            self.tables[-1]["heads" if self.head else "rows"][-1].append(self.cell)
        elif tag == "caption":
            self.cell = {"text": ""}
        elif tag == "small":
            self.skipping += 1

    def handle_endtag(self, tag):
        if tag == "caption":
            self.tables[-1]["caption"], self.cell = self.cell["text"], None
        elif tag in {"th", "td"}:
            self.cell = None
        elif tag == "small":
            self.skipping -= 1

    def handle_data(self, data):
        if self.cell is not None and not self.skipping:
            self.cell["text"] += data


def tables_of(path):
    """Pairs of a caption and a grid of text, the heads first."""
    tables = []
    for table in Tables(path.read_text(encoding="utf-8")).tables:
        heads = [cell["text"].strip() for cell in table["heads"][0]]
        rows = [[cell["text"].strip() for cell in row] for row in table["rows"]]
        tables.append((table["caption"].strip(), [heads, *rows]))
    return tables


def latex_table(path):
    """Heads, joined over their lines, and rows of a table of the thesis kit."""
    body = path.read_text(encoding="utf-8").partition("\\toprule\n")[2]
    heads, _, rest = body.partition("\\midrule\n")
    grid = []
    for part in (heads, rest.partition("\\bottomrule")[0]):
        lines = []
        for line in part.strip().splitlines():
            cells = line.removesuffix(" \\\\").split(" & ")
            lines.append([plain_tex(cell) for cell in cells])
        grid.append(lines)
    heads = [" ".join(filter(None, words)) for words in zip(*grid[0], strict=True)]
    return [heads, *grid[1]]


def plain_tex(text):
    """Text without the commands that the kit writes for signs."""
    for command, sign in (
        ("\\textdiv{}", "÷"), ("\\textendash{}", "–"), ("\\texttimes{}", "×"), ("\\%", "%"),
        ("\\_", "_"), ("\\allowbreak{}", ""), ("~", " "), ("{}", ""), ("\\,", " "),
    ):  # fmt: skip
        text = text.replace(command, sign)
    return text.removeprefix("{").removesuffix("}")
