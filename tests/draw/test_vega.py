"""The script that pages and notebooks carry."""

import re

import altair as alt

from sparsity_report.draw.vega import VEGALITE, bundle


def test_the_bundle_reads_what_altair_writes():
    # If this fails, run python docs/tools/bundle_vega.py
    assert re.search(rf'="{re.escape(VEGALITE)}\.\d+"', bundle())
    assert alt.SCHEMA_VERSION.removeprefix("v").split(".")[0] == VEGALITE.split(".")[0]


def test_the_bundle_stands_in_a_page_or_a_module_and_leaves_one_name(chromium):
    assert not re.search(r"</script|<!--", bundle(), re.IGNORECASE)
    context = chromium.new_context()
    page = context.new_page()
    names = "Object.getOwnPropertyNames(window)"
    before = set(page.evaluate(names))
    page.set_content(f"<script>{bundle()}</script>")
    assert page.evaluate("typeof vegaEmbed") == "function"
    as_module = """text => import(URL.createObjectURL(new Blob([text], {type: "text/javascript"})))
        .then((module) => typeof module.default)"""
    assert page.evaluate(as_module, bundle() + "export default vegaEmbed;") == "function"
    assert set(page.evaluate(names)) == before
    context.close()
