"""Tables for readers, charts and the viewer read labels from one table of columns."""

import pytest
from helpers import study_of

import sparsity_report as sr
from sparsity_report.report.tables.table_model import table_of
from sparsity_report.study.schema import METRICS
from sparsity_report.viewer.study_payload import study_contents


@pytest.fixture(scope="module")
def study(demo):
    return study_of(demo)


@pytest.mark.parametrize("name", METRICS)
def test_metric_has_one_label(study, name):
    label = METRICS[name].label
    assert table_of("t", "", name, []).heads == [label]
    header, _ = study_contents(study)
    if name != "sensitivity":  # which has its label where it was measured
        assert header["metrics"][name]["label"] == label
    explorer = sr.explore(study)
    explorer.metric = name
    assert explorer.chart.to_dict()["title"]["text"] == label
