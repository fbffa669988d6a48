"""The drawing of the package names each wing, module and import once, from the source files."""

import sys

import house
import pytest
from page_code import ROOT

sys.path.append(str(ROOT / "docs" / "_ext"))
PACKAGE = ROOT / "sparsity_report"


@pytest.mark.tools
def test_the_drawing_is_the_tree():
    from package_wings import wings  # which needs docutils

    drawn = {wing.name: wing for wing in wings()}
    assert list(drawn) == list(house.WINGS)
    assert all(wing.description.endswith(".") for wing in drawn.values())
    for folder in (path for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()):
        files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        parts = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
        assert set(drawn[folder.name].rooms) == files | parts
    assert "weights" in drawn["counting"].imported
    for name, wing in drawn.items():
        assert all(house.WINGS.index(below) > house.WINGS.index(name) for below in wing.imported)
