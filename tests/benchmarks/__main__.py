"""Benchmarks of this revision, or of two revisions in turn.

    python -m tests.benchmarks                  # this revision, docs/explanation/benchmarks.md
    python -m tests.benchmarks --against HEAD~1 # ratios, this revision ÷ the other
    python -m tests.benchmarks --short          # small inputs and one round, under a minute

Each case runs in a separate process, on both revisions in turn (A B A B), so that a drift of the
machine affects both alike. A ratio above 1 means that this revision is slower or its page larger.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.benchmarks.cases import CASES

ROOT = Path(__file__).resolve().parent.parent.parent
HEAD = "| measurement | median | min | max |\n|---|---:|---:|---:|"


@contextmanager
def worktree(revision: str, folder: Path) -> Iterator[Path]:
    """Check a revision out for a while."""
    tree = folder / "revision"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def measure(case: str, tree: Path, folder: Path, short: bool) -> dict[str, float]:
    """Run a case with the package of a tree; return its values by name."""
    line = [sys.executable, str(ROOT / "tests" / "benchmarks" / "cases.py"), case, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONWARNINGS": "ignore"}
    # In the checkout, `python -m` would import it instead of the tree.
    done = subprocess.run(
        line + ["--short"] * short, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
        check=True,
    )  # fmt: skip
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def rounds(
    trees: Sequence[Path], case: str, folder: Path, number: int, short: bool
) -> dict[str, list[tuple[float, ...]]]:
    """Return a tuple of values, one per tree, for each round, by name of the measurement."""
    taken: dict[str, list[tuple[float, ...]]] = {}
    for _ in range(number):
        values = [measure(case, tree, folder, short) for tree in trees]
        for name in values[0].keys() & values[-1].keys():
            taken.setdefault(name, []).append(tuple(each[name] for each in values))
    return {name: taken[name] for name in sorted(taken)}


def row(name: str, values: Sequence[float]) -> str:
    """Return a row of the table."""
    cells = (median(values), min(values), max(values))
    return f"| {name} | {' | '.join(f'{value:.3g}' for value in cells)} |"


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--against", metavar="REV", help="Revision to compare with.")
    parser.add_argument("--short", action="store_true", help="Small inputs, one round.")
    parser.add_argument("--rounds", type=int, help="Rounds per case. [default: 5, short: 1]")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    given = parser.parse_args()
    number = given.rounds or (1 if given.short else 5)
    with tempfile.TemporaryDirectory(prefix="sparsity-report-benchmarks-") as name:
        folder = Path(name)
        if given.against:
            print(f"Ratios: this revision ÷ {given.against}, {number} rounds in turn.\n")
            with worktree(given.against, folder) as other:
                table([ROOT, other], given.only, folder, number, given.short)
        else:
            table([ROOT], given.only, folder, number, given.short)


def table(
    trees: Sequence[Path], cases: Sequence[str], folder: Path, number: int, short: bool
) -> None:
    """Print a row per measurement as soon as its case is done."""
    for tree in trees:  # the first import compiles modules
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(tree / "sparsity_report")])
    print(HEAD, flush=True)
    for case in cases:
        for name, taken in rounds(trees, case, folder, number, short).items():
            if len(trees) == 1:
                print(row(name, [value for (value,) in taken]), flush=True)
                continue
            ratios = [this / other for this, other in taken]
            unit = name.rpartition(", ")[2]
            now = f"{median(this for this, _ in taken):.3g} {unit}"
            print(row(f"{name.rpartition(', ')[0]} (now {now})", ratios), flush=True)


if __name__ == "__main__":
    main()
