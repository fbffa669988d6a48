"""Code blocks of Markdown pages, and models that stand for the paths in them."""

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import gguf
import harnesses
import numpy as np
from helpers import write_gguf

import sparsity_report as sr

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "sparsity_report" / "demo"
FENCE = re.compile(
    r"^(`{3,})(?:\{code-block\} )?(python|console|bash)\n(.*?)^\1$(?:\n\n^\1text\n(.*?)^\1$)?",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """One block: its language, its code, whether it runs here, and the text block after it."""

    language: str
    code: str
    runs: bool
    output: str | None = None

    @property
    def commands(self):
        """Command lines, continued ones joined and comments left out."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(text):
    """Return the blocks of a page in their order."""
    return [
        Block(
            language, re.sub(r"^:[\w-]+:.*\n", "", code, flags=re.M), ":class: not-run" not in code,
            output,
        )
        for _, language, code, output in (match.groups() for match in FENCE.finditer(text))
    ]  # fmt: skip


def pages():
    """Return the pages of the project: README, CONTRIBUTING, SECURITY and those of the site."""
    generated = {"generated", "_build", "auto_examples"}
    site = [
        path
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if not generated.intersection(path.relative_to(ROOT).parts)
    ]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *site]


def put_models(folder):
    """Write the models and files that pages name, under the names that they give."""
    for name in ("facebook/opt-125m", "path/to/model", "path/to/base", "base"):
        shutil.copytree(DEMO, folder / name)
    half = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5))
    for name in ("path/to/pruned", "pruned"):
        sr.write_checkpoint(half, folder / name)
    layer = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    tensors = {
        f"blk.{block}.ffn_up.weight": (layer, gguf.GGMLQuantizationType.Q8_0) for block in (0, 1)
    }
    write_gguf(folder / "path" / "to" / "model.gguf", tensors, architecture="mystery")
    harnesses.write(folder / "results.json", harnesses.lm_eval())
