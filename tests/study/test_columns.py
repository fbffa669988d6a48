"""Tables for readers, charts and the viewer read labels from one table of columns."""

import pytest
from helpers import study_of

import sparsity_report as sr
from sparsity_report.report.tables.table_model import table_of
from sparsity_report.study.schema import METRICS
from sparsity_report.viewer.study_payload import study_contents
from sparsity_report.words import display_names


@pytest.fixture(scope="module")
def study(demo):
    return study_of(demo)


@pytest.mark.parametrize("name", METRICS)
def test_metric_has_one_label(study, name):
    # The viewer leaves the bias out of the sparsity of a layer.
    label = METRICS[name].label if name != "sparsity" else display_names.head("weight_sparsity")
    assert name == "sparsity" or [
        column.label for column in table_of("t", "", name, []).columns
    ] == [label]
    shown = {metric["key"]: metric for metric in study_contents(study).header["metrics"]}
    if name == "sensitivity":  # which is a metric where it was measured
        assert name not in shown
        return
    assert shown[name]["label"] == label
    explorer = sr.explore(study)
    explorer.select(metric=name)
    assert explorer.chart.to_dict()["title"]["text"] == label
