"""Figures of sixty model classes, against oracles that know none of this package's rules.

``python tests/zoo/walk.py`` does so for all. What is known to fail stands in ``known.json`` with
what is wrong; after mending it, ``python tests/zoo/walk.py --chosen --write``.
"""

import json
from pathlib import Path

import pytest
import torch
from helpers import swept

from zoo.checks import CHECKS
from zoo.chosen import NAMES
from zoo.page import PAGE, line
from zoo.tiny import walked
from zoo.walk import walk

CLASSES = {case.name: case for case in walked()}
KNOWN = json.loads((Path(__file__).parent / "known.json").read_text("utf-8"))
# Transformers advises on kernels that are not installed.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def one_thread():
    """Products this small are slower by two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_there_are_sixty():
    assert len(NAMES) == len(set(NAMES)) == 60
    assert set(NAMES) <= CLASSES.keys()
    assert KNOWN.keys() <= set(NAMES)


@pytest.mark.parametrize("name", swept(NAMES, 6))
def test_figures_agree_with_the_oracles(name):
    """All checks at once, as building a model and running it takes most of the time."""
    row = walk(name)
    assert (row["built"], row["ran"]) == ("", "")
    wrong = {letter: row[letter] for letter in CHECKS if row.get(letter)}
    assert wrong.keys() == KNOWN.get(name, {}).keys(), wrong
    assert f"\n{line(row)}\n" in PAGE.read_text("utf-8")
