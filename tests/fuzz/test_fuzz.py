"""A few damaged files of every kind in every test run.

``FUZZ_CASES=10000 FUZZ_SEED=7 pytest tests/fuzz -k safetensors`` runs other ones, and more.
"""

import os
import shutil
import time
import traceback
from dataclasses import dataclass

import pytest

import sparsity_report as sr
from fuzz.families import FAMILIES
from fuzz.family import Case, cases, write

CASES, SEED = int(os.environ.get("FUZZ_CASES", "0")), int(os.environ.get("FUZZ_SEED", "1"))
# An error for people is not a page.
LONGEST = 2500


@dataclass(frozen=True)
class Outcome:
    """A case and its end: right or refused, or a traceback, a hang or a wrong number."""

    kind: str
    said: str = ""


def judge(case, folder):
    """Write the files of a case and open them."""
    write(case.files(), folder)
    began = time.process_time()
    try:
        wrong = case.family.judge(folder, case.base)
        outcome = Outcome("wrong", wrong) if wrong else Outcome("right")
    except sr.SparsityReportError as error:
        said = str(error)
        plain = said.isprintable() and 0 < len(said) <= LONGEST
        outcome = Outcome("refused" if plain else "wrong", said)
    except Exception:
        outcome = Outcome("traceback", traceback.format_exc(limit=-6))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if (took := time.process_time() - began) > case.family.seconds:
        return Outcome("hang", f"{took:.1f} s; {outcome.kind}: {outcome.said}")
    return outcome


@pytest.mark.filterwarnings("ignore")  # of libraries, about what is damaged
@pytest.mark.parametrize("name", FAMILIES)
def test_damaged_files_are_counted_right_or_refused(name, tmp_path):
    family = FAMILIES[name]
    bases = family.bases(tmp_path / "bases")
    intact = {base.name: judge(Case(base, (), family), tmp_path / "case") for base in bases}
    assert {name: said for name, said in intact.items() if said.kind != "right"} == {}
    outcomes = {
        (case.base.name, case.steps): judge(case, tmp_path / "case")
        for case in cases(family, bases, SEED, 0, CASES or family.quick)
    }
    wrong = {case: said for case, said in outcomes.items() if said.kind not in {"right", "refused"}}
    assert wrong == {}
    assert "refused" in {outcome.kind for outcome in outcomes.values()}
