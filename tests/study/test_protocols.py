"""Scores are compared by one definition of text and protocol."""

import pandas as pd
import pytest
from measurements import put_in, quality

from sparsity_report.report.tables.method_tables import results
from sparsity_report.study.derived.protocol_scores import (
    ANY_TOKENIZER,
    by_protocol,
    scores_by_protocol,
)


@pytest.fixture(scope="module")
def scores(demo_study):
    """The same variants scored in float32 and, a little worse, in float16."""
    names = tuple(demo_study.variants["variant"])[:2]
    single = quality(((0.0, 10.0), (0.3, 12.0)), names=names)
    half = single.assign(dtype="float16", perplexity=single["perplexity"] + 1)
    return pd.concat([single.assign(dtype="float32"), half], ignore_index=True)


@pytest.mark.parametrize("columns", [None, ANY_TOKENIZER])
def test_float16_and_float32_are_two_protocols(scores, columns):
    parts = list(by_protocol(scores, columns) if columns else by_protocol(scores))
    assert [part["dtype"].unique().tolist() for part in parts] == [["float32"], ["float16"]]


def test_an_unknown_part_of_a_protocol_is_equal_to_an_unknown_one(scores):
    unknown = scores[:2].assign(dtype=None)
    assert [len(part) for part in by_protocol(unknown)] == [2]
    dense, masked = unknown["variant"]
    (key,) = scores_by_protocol(unknown, dense)
    assert scores_by_protocol(unknown, masked)[key]["perplexity"] == 12.0
    assert key not in scores_by_protocol(scores[1:2], masked)


def test_results_do_not_mix_float16_and_float32(demo_study, scores):
    table = results(put_in(demo_study, quality=scores))
    (place,) = [p for p, column in enumerate(table.columns) if column.name == "perplexity"]
    assert [row.cells[place].text for row in table.rows] == ["10.00", "12.00", "–"]
