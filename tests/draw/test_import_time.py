"""The command line imports altair without the grammar of IRIs, which takes longer than altair."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
from helpers import need

CODE = """
import sys
from sparsity_report.cli.options import Outputs
from sparsity_report.cli.outputs import check_outputs
check_outputs(Outputs())
import sparsity_report.draw.charts
print("lark" in sys.modules)
"""


@pytest.mark.tools
def test_the_command_line_builds_no_grammar():
    need(find_spec("rfc3987_syntax") is not None, "rfc3987-syntax, which Jupyter installs")
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
