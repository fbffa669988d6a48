"""Bundle Vega, Vega-Lite and Vega-Embed into one script for pages and notebooks.

vl-convert contains their sources and takes seconds to bundle them, so the package ships the result:

    python docs/tools/bundle_vega.py
"""

import re

import vl_convert

from sparsity_report.draw.vega import BUNDLE, VEGALITE


def main() -> None:
    """Write the bundle as one constant, `vegaEmbed`, which defines no other name."""
    script = vl_convert.javascript_bundle("window.chosen = vegaEmbed;", vl_version=VEGALITE)
    script = re.sub(r"window\.chosen=([$\w]+);\s*$", r"return \1;", script)
    # Escape text that would end or alter the script element of a page.
    script = re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)
    versions = (
        f"Vega {vl_convert.get_vega_version()}, Vega-Lite {VEGALITE}, "
        f"Vega-Embed {vl_convert.get_vega_embed_version()}"
    )
    head = f"/* {versions} and what they need; licences: vega-licences.txt of sparsity-report. */"
    BUNDLE.write_text(f"{head}\nconst vegaEmbed = (() => {{{script}}})();\n", encoding="utf-8")


if __name__ == "__main__":
    main()
