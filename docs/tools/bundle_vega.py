"""Bundle Vega, Vega-Lite and Vega-Embed into the one script that pages and notebooks carry.

It is made by vl-convert, which holds their sources, and takes seconds; so it ships instead of being
made for every report:

    python docs/tools/bundle_vega.py
"""

import re

import vl_convert

from sparsity_report.draw.vega import BUNDLE, VEGALITE


def main() -> None:
    """Write the bundle as one constant, `vegaEmbed`, that leaves no other name behind."""
    script = vl_convert.javascript_bundle("window.chosen = vegaEmbed;", vl_version=VEGALITE)
    script = re.sub(r"window\.chosen=([$\w]+);\s*$", r"return \1;", script)
    # Whatever page it stands in, it does not end the element it stands in.
    script = re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)
    versions = (
        f"Vega {vl_convert.get_vega_version()}, Vega-Lite {VEGALITE}, "
        f"Vega-Embed {vl_convert.get_vega_embed_version()}"
    )
    head = f"/* {versions} and what they need; licences: vega-licences.txt of sparsity-report. */"
    BUNDLE.write_text(f"{head}\nconst vegaEmbed = (() => {{{script}}})();\n", encoding="utf-8")


if __name__ == "__main__":
    main()
