"""The examples in docstrings run and give what they say."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import sparsity_report

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(sparsity_report.__path__, "sparsity_report.")
    if name not in {"sparsity_report.__main__", "sparsity_report.demo.train"}
]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("name", ["sparsity_report", *MODULES])
def test_examples(name):
    assert doctest.testmod(import_module(name), optionflags=OPTIONS).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    examples = sum(len(t.examples) for n in MODULES for t in finder.find(import_module(n)))
    assert examples > 40
