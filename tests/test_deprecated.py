"""Old names, keywords and orders of arguments: they warn, name the new ones, and still work."""

import re
import warnings

import numpy as np
import pytest

import sparsity_report as sr
from sparsity_report.deprecated import REMOVED_IN, RENAMED, old_arguments


def numbers(version):
    return [*map(int, re.findall(r"\d+", version)[:3])]


def test_old_names_go_with_the_release_that_the_warnings_name():
    assert numbers(sr.__version__) < numbers(REMOVED_IN)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_is_the_new_one_and_warns_at_the_line_that_uses_it(old):
    with pytest.warns(
        DeprecationWarning, match=rf"sr\.{old} .* {REMOVED_IN}; use sr\.{RENAMED[old]}$"
    ) as seen:
        value = getattr(sr, old)
    assert value is getattr(sr, RENAMED[old])
    assert [warning.filename for warning in seen] == [__file__]
    assert old not in dir(sr)
    with pytest.warns(DeprecationWarning, match=REMOVED_IN) as seen:
        exec(f"from sparsity_report import {old}", {})
    assert seen


def test_unknown_names_are_missing_without_a_warning():
    with pytest.raises(AttributeError, match="Comparisons"):
        sr.Comparisons  # noqa: B018


@old_arguments(swapped=lambda _, second: second == "weights", source="file")
def read(weights, file, *, more=0):
    return weights, file, more


@pytest.mark.parametrize(
    ("given", "options", "warned"),
    [
        (("weights", "f"), {}, []),
        (("weights",), {"file": "f"}, []),
        ((), {"file": "f", "weights": "weights"}, []),
        (("f", "weights"), {}, ["sr.read(file, weights)"]),
        (("f",), {"weights": "weights"}, ["sr.read(file, weights)"]),
        (("weights",), {"source": "f"}, ["source= of sr.read"]),
        ((), {"source": "f", "weights": "weights"}, ["source= of sr.read"]),
    ],
)
def test_arguments_in_the_old_order_and_with_old_names(given, options, warned):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert read(*given, more=1, **options) == ("weights", "f", 1)
    assert [str(each.message).partition(" will")[0] for each in seen] == warned
    assert {each.filename for each in seen} <= {__file__}


def test_mistakes_are_still_errors():
    for given, options in [((), {}), (("weights", "f", "x"), {}), (("weights",), {"files": 1})]:
        with pytest.raises(TypeError):
            read(*given, **options)
    with pytest.raises(TypeError), pytest.warns(DeprecationWarning, match=REMOVED_IN):
        read("weights", "f", source="f")


def old_orders(weights, folder):
    study = sr.compare(sr.dense(weights))
    name = weights.prunable[0].name
    masks = {name: np.eye(128)}
    yield "import_mask", (masks, weights), (weights, masks), {}
    yield "reproduce", ("wanda", weights), (weights, "wanda"), {}
    yield "reproduce", ("wanda", "no/model"), ("no/model", "wanda"), {}
    yield "write_csv", (study,), (study, folder), {"directory": folder}
    yield "write_figures", (study,), (study, folder), {"directory": folder}
    yield "wanda", (weights, 0.5), (weights, 0.5, "a text"), {"text": "a text"}
    yield "owl", (weights, 0.5), (weights, 0.5, "a text"), {"text": "a text"}
    yield "read_experts", ({"a": [0]}, weights), (weights, {"a": [0]}), {}


def outcome(function, given, options):
    """Text of the result, or of the error."""
    try:
        return str(function(*given, **options))
    except sr.SparsityReportError as error:
        return str(error)


def test_public_functions_accept_their_old_arguments(tmp_path):
    for name, old, new, options in old_orders(sr.load(), tmp_path):
        function = getattr(sr, name)
        with pytest.warns(DeprecationWarning, match=REMOVED_IN) as seen:
            before = outcome(function, old, options)
        assert [each.filename for each in seen] == [__file__], name
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert before == outcome(function, new, {}), name
