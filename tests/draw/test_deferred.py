"""Altair's import does not make a grammar that only a check of IRIs needs, and that check works."""

import json
import subprocess
import sys
from importlib.util import find_spec

from helpers import need

CHECKED = """
import json, sys
import sparsity_report.explorer.widget
import altair
made = "lark" in sys.modules
import jsonschema
holds = jsonschema.Draft202012Validator.FORMAT_CHECKER.conforms
said = [[holds(text, kind) for text in json.loads(sys.argv[1])] for kind in sys.argv[2:]]
import rfc3987_syntax
print(json.dumps([made, *said, "iri" in rfc3987_syntax.RFC3987_SYNTAX_TERMS]))
"""
# By RFC 3987: an IRI has a scheme, a reference need not; a space is in neither.
TEXTS = {
    "http://example.org/ä?b#c": (True, True), "urn:x:y": (True, True), "//x/../y": (False, True),
    "": (False, True), "http://exa mple.org": (False, False), "a b": (False, False),
}  # fmt: skip


def test_it_is_made_when_an_iri_is_checked():
    need(find_spec("rfc3987_syntax") is not None, "rfc3987-syntax, which Jupyter brings")
    line = [sys.executable, "-c", CHECKED, json.dumps([*TEXTS]), "iri", "iri-reference"]
    run = subprocess.run(line, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [False, *map(list, zip(*TEXTS.values(), strict=True)), True]
