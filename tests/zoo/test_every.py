"""What this package says of sixty model classes, against oracles that know none of its rules.

``python tests/zoo/walk.py`` does so for all. What is known to fail stands in ``known.json`` with
what is wrong; after mending it, ``python tests/zoo/walk.py --chosen --write``.
"""

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from zoo.checks import CHECKS
from zoo.chosen import NAMES
from zoo.page import PAGE, line
from zoo.tiny import walked
from zoo.walk import walk

CLASSES = {case.name: case for case in walked()}
KNOWN = json.loads((Path(__file__).parent / "known.json").read_text("utf-8"))
pytestmark = pytest.mark.filterwarnings("ignore")  # advice on kernels that are not installed


@pytest.fixture(autouse=True)
def one_thread():
    """Products this small are slower by two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@lru_cache
def row_of(name):
    return walk(name)


def cases():
    for name in NAMES:
        for letter in CHECKS:
            reason = KNOWN.get(name, {}).get(letter)
            marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
            yield pytest.param(name, letter, marks=marks, id=f"{name}-{letter}")


def test_there_are_sixty():
    assert len(NAMES) == len(set(NAMES)) == 60
    assert set(NAMES) <= CLASSES.keys()
    assert KNOWN.keys() <= set(NAMES)


@pytest.mark.parametrize(("name", "letter"), list(cases()))
def test_what_is_said_is_so(name, letter):
    row = row_of(name)
    wrong = row["built"] or row["ran"] or row.get(letter)
    if wrong:
        pytest.fail(wrong, pytrace=False)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_the_walk_has_seen(name):
    assert f"\n{line(row_of(name))}\n" in PAGE.read_text("utf-8")
