"""Break the package at random, one small change at a time, and see whether the tests notice.

Run by hand, from the root of a checkout: ``python tests/mutants.py --number 100 --seed 1``. It
needs ``pip install coverage``. Each worker changes a copy of the tree, never the checkout.

What a reader sees is made in ``draw``, ``report``, ``findings`` and ``viewer``; so mutants are
drawn there, evenly among all places where one of the operators below applies. Left out is what no
number depends on: docstrings, messages, annotations, ``draw/theme.py`` and keywords that only say
how something looks, how much is remembered or that two lists are as long. Which test files run is
read from coverage, measured file by file, so that a file counts for every line it reaches however
fixtures are shared. Tests that reach the line themselves come first, those that reach little else
before others; then the files, the quickest first; the first failure ends a run. Tests that open a
browser or run notebooks are left out: a survivor may still die there.

mutmut and cosmic-ray start one process of pytest per mutant, and importing torch and altair costs
more than most of the tests; here a process that has imported them is forked.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[1]
WINGS = ("draw", "report", "findings", "viewer")
LOOKS = {
    "align", "angle", "anchor", "band", "baseline", "binSpacing", "columns", "cornerRadius",
    "cornerRadiusEnd", "domain", "dx", "dy", "fontSize", "format", "grid", "height", "indent",
    "innerRadius", "labelAngle", "labelFontSize", "labelLimit", "labelPadding", "legend", "limit",
    "lineHeight", "minExtent", "offset", "opacity", "orient", "padding", "paddingInner",
    "paddingOuter", "rowPadding", "size", "spacing", "step", "strokeDash", "strokeOpacity",
    "strokeWidth", "subtitleFontSize", "symbolSize", "symbolStrokeWidth", "thickness", "tickCount",
    "tickSize", "ticks", "titleFontSize", "titlePadding", "titleY", "width", "x", "y", "zindex",
    "maxsize", "strict",
}  # fmt: skip
# Tests that take long, and what they cover is covered by others, too.
LEFT_OUT = {"test_browser.py", "test_notebooks.py"}
OPTIONS = [
    "-q",
    "-x",
    "-n",
    "0",
    "-p",
    "no:cacheprovider",
    "--all",
    "-m",
    "not browser and not latex",
]
# Tests by themselves that are tried before whole files.
FIRST = 20
# Codes of pytest: all is well, it was called with what is no test, there is none.
PASSED = {0, 4, 5}
# What is imported before the fork is not rewritten by pytest, and need not be.
PRELOADED = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*"}
NAMES = {
    "sum": "max", "max": "min", "min": "max", "argmin": "argmax", "argmax": "argmin",
    "idxmin": "idxmax", "idxmax": "idxmin", "nlargest": "nsmallest", "nsmallest": "nlargest",
    "head": "tail", "tail": "head", "first": "last", "last": "first", "any": "all", "all": "any",
    "floor": "ceil", "ceil": "floor", "notna": "isna", "isna": "notna",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A change of one stretch of a file."""

    file: str
    line: int
    start: int
    end: int
    text: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.end :]


class Mutator(ast.NodeVisitor):
    """Collect the mutants of a file."""

    def __init__(self, file: str, source: str, columns: dict[str, list[str]]) -> None:
        self.file, self.source, self.columns = file, source.encode(), columns
        self.starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.mutants: list[Mutant] = []
        self.visit(ast.parse(source))

    def span(self, node: ast.expr) -> tuple[int, int]:
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0),
        )

    def text(self, node: ast.expr) -> str:
        start, end = self.span(node)
        return self.source[start:end].decode()

    def add(self, node: ast.expr, text: str) -> None:
        start, end = self.span(node)
        self.mutants.append(Mutant(self.file, node.lineno, start, end, text))

    def swap(self, one: ast.expr, other: ast.expr) -> None:
        """Exchange two expressions, the first of which stands before the second."""
        (start, middle), (again, end) = self.span(one), self.span(other)
        if middle <= again and self.text(one) != self.text(other):
            between = self.source[middle:again].decode()
            text = self.text(other) + between + self.text(one)
            self.mutants.append(Mutant(self.file, one.lineno, start, end, text))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        for child in [*node.args.defaults, *node.args.kw_defaults, *body]:
            if child is not None:
                self.visit(child)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for child in node.body[1:] if ast.get_docstring(node, clean=False) else node.body:
            self.visit(child)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """Leave messages of errors alone."""

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.add(node, str(not value))
        elif isinstance(value, int | float):
            self.add(node, repr(value + 1))
            self.add(node, repr(value - 1) if value else "2")
        elif isinstance(value, str) and value in self.columns:
            for other in self.columns[value]:
                self.add(node, repr(other))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave f-strings alone: before Python 3.12 their parts have no places of their own."""

    def visit_Compare(self, node: ast.Compare) -> None:
        self.generic_visit(node)
        if len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
            sign = COMPARISONS[type(node.ops[0])]
            self.add(node, f"{self.text(node.left)} {sign} {self.text(node.comparators[0])}")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.generic_visit(node)
        sides = (node.left, node.right)
        if any(isinstance(s, ast.JoinedStr | ast.List | ast.Tuple) for s in sides) or any(
            isinstance(s, ast.Constant) and isinstance(s.value, str) for s in sides
        ):
            return
        if type(node.op) in ARITHMETIC:
            sign = ARITHMETIC[type(node.op)]
            self.add(node, f"{self.text(node.left)} {sign} {self.text(node.right)}")

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.generic_visit(node)
        sign = " or " if isinstance(node.op, ast.And) else " and "
        self.add(node, sign.join(f"({self.text(value)})" for value in node.values))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not | ast.USub):
            self.add(node, f"({self.text(node.operand)})")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.generic_visit(node)
        self.swap(node.body, node.orelse)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if not (isinstance(key, ast.Constant) and key.value in LOOKS):
                self.visit(value)
            if key is not None:
                self.visit(key)
        pairs = [v for k, v in zip(node.keys, node.values, strict=True) if k is not None]
        for one, other in pairwise(pairs):
            self.swap(one, other)

    def visit_Call(self, node: ast.Call) -> None:
        self.visit(node.func)
        for value in node.args:
            self.visit(value)
        named = [k for k in node.keywords if k.arg not in LOOKS]
        for keyword in named:
            self.visit(keyword.value)
        plain = [value for value in node.args if not isinstance(value, ast.Starred)]
        if ast.unparse(node.func) not in {"max", "min"}:
            self.swaps(plain)
        self.swaps([keyword.value for keyword in named if keyword.arg])

    def swaps(self, values: list[ast.expr]) -> None:
        for one, other in pairwise(values):
            self.swap(one, other)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in NAMES and isinstance(node.ctx, ast.Load):
            self.add(node, NAMES[node.id])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        if node.attr in NAMES and isinstance(node.ctx, ast.Load):
            self.add(node, f"{self.text(node.value)}.{NAMES[node.attr]}")


def swapped_columns() -> dict[str, list[str]]:
    """For each column of a table the columns of the same type beside it in some table."""
    from sparsity_report.study.schema import TABLES

    beside: dict[str, list[str]] = {}
    for table in TABLES.values():
        for column in table.values():
            like = [c.name for c in table.values() if c.dtype.lower() == column.dtype.lower()]
            others = beside.setdefault(column.name, [])
            others += [name for name in like if name not in {column.name, *others}]
    return beside


def places(wings: tuple[str, ...]) -> dict[tuple[str, int, int], list[Mutant]]:
    """Return the mutants of the wings by where they are."""
    columns = swapped_columns()
    found: dict[tuple[str, int, int], list[Mutant]] = {}
    for wing in wings:
        for path in sorted((ROOT / "sparsity_report" / wing).rglob("*.py")):
            if path.name in {"theme.py", "__init__.py"}:
                continue
            file = str(path.relative_to(ROOT))
            for mutant in Mutator(file, path.read_text(encoding="utf-8"), columns).mutants:
                found.setdefault((file, mutant.start, mutant.end), []).append(mutant)
    return found


def copied(folder: Path) -> Path:
    """Copy what the tests need of the checkout."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def preloaded() -> None:
    """Import what all tests import, none of it ours, so that a fork has it at once."""
    import altair  # noqa: F401
    import hypothesis  # noqa: F401
    import ipywidgets  # noqa: F401
    import jinja2  # noqa: F401
    import pandas  # noqa: F401
    import pytest  # noqa: F401
    import torch
    import transformers  # noqa: F401
    import typst  # noqa: F401

    torch.set_num_threads(1)


def forked(folder: Path, arguments: list[str], log: Path, limit: float) -> tuple[int, float]:
    """Run pytest in a fork, in a copy of the tree; return its code, or -1 past the limit.

    The limit is of processor time, so that a busy machine kills nothing; what only waits ends
    after five times as long.
    """
    begun = time.monotonic()
    if (child := os.fork()) == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit) + 5))
        with log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(folder)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
        for name in [m for m in sys.modules if m.partition(".")[0] == "sparsity_report"]:
            del sys.modules[name]
        sys.path[:] = [str(folder), *(p for p in sys.path if p != str(ROOT / "tests"))]
        code = 3
        try:
            import pytest

            code = int(pytest.main([*OPTIONS, *PRELOADED, *arguments]))
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    while time.monotonic() - begun < 5 * limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return -1 if code == -signal.SIGXCPU else code, time.monotonic() - begun
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1, time.monotonic() - begun


def covered(path: Path, folders: list[str]) -> dict[str, dict[str, object]]:
    """Return for each test file how long it takes and which lines of the package it reaches."""
    files = [
        str(test.relative_to(ROOT))
        for folder in folders
        for test in sorted((ROOT / "tests" / folder).glob("test_*.py"))
        if test.name not in LEFT_OUT
    ]
    known = json.loads(path.read_text()) if path.is_file() else {}
    for file in [file for file in files if file not in known]:
        data, settings = path.with_suffix(".coverage"), path.with_suffix(".ini")
        settings.write_text("[run]\ndynamic_context = test_function\n")
        line = [sys.executable, "-m", "coverage", "run", f"--data-file={data}",
                f"--rcfile={settings}", f"--include={ROOT}/sparsity_report/*",
                "-m", "pytest", *OPTIONS, file]  # fmt: skip
        begun = time.monotonic()
        run = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
        seconds = time.monotonic() - begun
        if run.returncode:
            print(f"{file} fails as it is:\n{run.stdout[-600:]}", flush=True)
            continue
        from coverage import CoverageData

        lines = CoverageData(str(data))
        lines.read()
        reached = {
            str(Path(name).relative_to(ROOT)): sorted(lines.lines(name) or ())
            for name in lines.measured_files()
        }
        tests = {*re.findall(r"^def (test_\w+)", (ROOT / file).read_text(encoding="utf-8"), re.M)}
        known[file] = {"seconds": seconds, "lines": reached, "tests": _by_test(lines, tests)}
        path.write_text(json.dumps(known))
        print(f"{seconds:6.1f} s  {file}", flush=True)
    return {file: known[file] for file in files if file in known}


def _by_test(lines: CoverageData, tests: set[str]) -> dict[str, dict[str, list[int]]]:
    """Return for each test function of a file which lines it reaches itself."""
    by_test: dict[str, dict[str, list[int]]] = {}
    for name in lines.measured_files():
        for line, contexts in lines.contexts_by_lineno(name).items():
            for context in filter(None, contexts):
                # Also functions of the package are called so.
                if (test := context.rpartition(".")[2]) in tests:
                    reached = by_test.setdefault(test, {})
                    reached.setdefault(str(Path(name).relative_to(ROOT)), []).append(line)
    return by_test


def tests_of(file: str, span: set[int], tests: dict[str, dict[str, object]]) -> list[str]:
    """Return the tests that reach lines themselves, those that reach little else first."""
    sizes = {
        f"{path}::{test}": sum(map(len, reached.values()))
        for path, about in tests.items()
        for test, reached in about["tests"].items()
        if span.intersection(reached.get(file, ()))
    }
    return sorted(sizes, key=sizes.__getitem__)[:FIRST]


def chosen(number: int, seed: int, wings: tuple[str, ...]) -> Iterator[Mutant]:
    """Draw mutants, at most one per place, every place as likely as any."""
    dice = random.Random(seed)
    by_place = places(wings)
    for place in dice.sample(sorted(by_place), min(number, len(by_place))):
        yield dice.choice(by_place[place])


def report(mutant: Mutant, verdict: str) -> str:
    source = (ROOT / mutant.file).read_bytes()
    before, after = (text.decode().splitlines() for text in (source, mutant.applied(source)))
    lines = difflib.unified_diff(before, after, mutant.file, mutant.file, lineterm="", n=1)
    return "\n".join([verdict, *list(lines)[2:]])


def judge(mutant: Mutant, tree: Path, tests: dict[str, dict[str, object]], limit: float) -> str:
    """Return how a mutant ended."""
    source = (ROOT / mutant.file).read_bytes()
    try:
        compile(mutant.applied(source), mutant.file, "exec")
    except SyntaxError:
        return "invalid"
    span = range(mutant.line, mutant.line + mutant.text.count("\n") + 1)
    files = [
        file for file, about in tests.items() if {*span} & {*about["lines"].get(mutant.file, ())}
    ]
    # The lines of a table that stands there once are nowhere in the bytecode.
    files = files or [file for file, about in tests.items() if about["lines"].get(mutant.file)]
    if not files:
        return "SURVIVED, no test file reaches it"
    files.sort(key=lambda file: tests[file]["seconds"])
    target = tree / mutant.file
    target.write_bytes(mutant.applied(source))
    log = tree.with_suffix(".log")
    try:
        code, seconds = 0, 0.0
        for arguments in filter(None, (tests_of(mutant.file, {*span}, tests), files)):
            if code in PASSED:
                code, took = forked(tree, arguments, log, limit)
                seconds += took
    finally:
        target.write_bytes(source)
    if code in PASSED:
        return f"SURVIVED {len(files)} files, {seconds:.0f} s"
    said = log.read_text().splitlines()
    last = [line for line in said if line.startswith(("FAILED", "ERROR"))]
    if code == -1:
        return f"killed: still running after {seconds:.0f} s"
    if not last:
        return f"SURVIVED? pytest ended with {code}: {said[-1:]}"
    return f"killed in {seconds:.0f} s by {last[-1][:140]}"


def worker(numbers: tuple[int, int], options: argparse.Namespace, tests: dict, out: Path) -> None:
    """Judge every n-th of the chosen mutants in a copy of the tree."""
    place, processes = numbers
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder) / "tree")
        for mutant in list(chosen(options.number, options.seed, options.wings))[place::processes]:
            verdict = judge(mutant, tree, tests, options.limit)
            with out.open("a") as file:
                file.write(json.dumps({"verdict": verdict, "text": report(mutant, verdict)}) + "\n")
            print(report(mutant, verdict), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wings", nargs="+", default=WINGS)
    parser.add_argument("--tests", nargs="+", default=WINGS, help="folders of tests to run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=240, help="processor seconds for one mutant")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "mutants")
    options = parser.parse_args()
    options.wings = tuple(options.wings)
    options.out.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [str(ROOT)]
    tests = covered(options.out / "coverage.json", options.tests)
    results = options.out / "results.jsonl"
    results.unlink(missing_ok=True)
    preloaded()
    children = []
    for place in range(options.processes):
        if (child := os.fork()) == 0:
            worker((place, options.processes), options, tests, results)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    verdicts = [json.loads(line) for line in results.read_text().splitlines()]
    judged = [v for v in verdicts if v["verdict"] != "invalid"]
    killed = [v for v in judged if v["verdict"].startswith("killed")]
    print(f"\n{len(killed)} of {len(judged)} mutants killed; survivors:\n")
    print("\n\n".join(v["text"] for v in judged if v not in killed))


if __name__ == "__main__":
    main()
