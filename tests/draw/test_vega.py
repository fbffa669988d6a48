"""The version of Vega-Lite that draws charts."""

import altair as alt

from sparsity_report.draw.vega import VEGALITE


def test_charts_are_drawn_by_the_version_for_which_altair_writes_them():
    assert alt.SCHEMA_VERSION.removeprefix("v").split(".")[0] == VEGALITE.split(".")[0]
