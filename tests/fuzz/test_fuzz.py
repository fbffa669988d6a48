"""A few damaged files of every kind in every test run; ``python -m tests.fuzz`` runs thousands."""

import pytest

from fuzz.families import FAMILIES
from fuzz.family import Case, cases
from fuzz.runner import GOOD, judge


@pytest.mark.filterwarnings("ignore")  # of libraries, about what is damaged
@pytest.mark.parametrize("name", FAMILIES)
def test_damaged_files_are_counted_right_or_refused(name, tmp_path):
    family = FAMILIES[name]
    bases = family.bases(tmp_path / "bases")
    intact = {base.name: judge(Case(base, (), family), tmp_path / "case") for base in bases}
    assert {name: said for name, said in intact.items() if said.kind != "right"} == {}
    outcomes = {
        (case.base.name, case.steps): judge(case, tmp_path / "case")
        for case in cases(family, bases, 1, 0, family.quick)
    }
    assert {case: said for case, said in outcomes.items() if said.kind not in GOOD} == {}
    assert not family.refused or "refused" in {outcome.kind for outcome in outcomes.values()}
