"""Looking at PDF files with poppler, and studies to fill them with."""

import re
import shutil
import subprocess

import torch
from helpers import need
from torch import nn

import sparsity_report as sr

HOSTILE = [
    '#read("/etc/passwd")',
    '"); panic("x',
    ']\n#include "/etc/passwd"',
    "\\input{/etc/passwd}",
    "^^M^^5cinput{/etc/passwd}",
    "a%b&c#d_e^f~g$h$",
    "{{7*7}}",
    "<<7*7>>",
    '=HYPERLINK("x")',
    "</script>",
    "@preview/x:0.1.0",
    "\u202egnirts\u202c",
    "🦙模型\u0300",
    "line\u2028break\ttab\x00\x1b[2J",
    "`--``,,<<>>?`'",
    "x" * 5000,
    "long name " * 500,
]


def poppler(tool, path, *options):
    """What a poppler tool says of a file."""
    need(shutil.which(tool) is not None, f"{tool}: apt-get install poppler-utils")
    where = [path, "-"] if tool == "pdftotext" else [path]
    run = subprocess.run([tool, *options, *where], capture_output=True, text=True, check=True)
    return run.stdout


def facts(path):
    """What pdfinfo says, by name."""
    lines = poppler("pdfinfo", path).splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


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


def hostile_study():
    """Names that would do harm wherever they were taken for more than names."""
    torch.manual_seed(0)
    names = [name.replace(".", "·") for name in HOSTILE]
    blocks = (nn.ModuleDict({name: nn.Linear(6, 8) for name in names}) for _ in range(2))
    model = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
    weights = sr.load(model, name=" ".join(HOSTILE))
    pruning = sr.global_magnitude(weights, 0.3)
    masked = [sr.masked(pruning, name=name) for name in HOSTILE]
    return sr.compare(sr.dense(weights), *masked, sr.csr(pruning), patterns=True)


def eight_variants(weights):
    """One model at four levels and by two policies."""
    at = {share: sr.global_magnitude(weights, share) for share in (0.1, 0.3, 0.5, 0.9)}
    return sr.compare(
        sr.dense(weights),
        *(sr.masked(pruning) for pruning in at.values()),
        sr.csr(at[0.3]),
        sr.csr(at[0.9]),
        sr.masked(sr.n_m(weights, 2, 4), name="TwoFour"),
    )
