"""What this package says of sixty model classes, against oracles that know none of its rules.

``python tests/zoo/walk.py`` does so for all. What is known to fail stands in ``known.json`` with
what is wrong; who mends it takes it out.
"""

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from zoo.checks import CHECKS, Subject, applies
from zoo.chosen import NAMES
from zoo.tiny import walked

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


@lru_cache(maxsize=1)
def subject(name):
    return Subject(CLASSES[name].build())


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
    wrong = CHECKS[letter](subject(name)) if applies(letter, subject(name).model) else None
    if wrong:
        pytest.fail(wrong, pytrace=False)
