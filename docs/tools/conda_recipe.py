"""Write the requirements of the conda recipe from pyproject.toml.

    python docs/tools/conda_recipe.py          # docs/packaging/recipe.yaml

A test compares both.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "docs" / "packaging" / "recipe.yaml"
# Names on conda-forge that differ from those of Python's index.
NAMES = {
    "huggingface-hub": "huggingface_hub",
    "lazy-loader": "lazy_loader",
    "torch": "pytorch",
    "typst": "typst-py",
}


def requirements() -> list[str]:
    """Return the requirements to run the package, as conda writes them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = ["python >=${{ python_min }}"]
    for requirement in tomllib.loads(text)["project"]["dependencies"]:
        name, bounds = re.fullmatch(r"([\w.-]+)(.*)", requirement).groups()
        lines.append(f"{NAMES.get(name, name)} {bounds}".strip())
    return lines


def recipe() -> str:
    """Return the recipe with these requirements."""
    listed = "".join(f"    - {line}\n" for line in requirements())
    text = TARGET.read_text(encoding="utf-8")
    return re.sub(r"(?<=\n  run:\n)(    - .*\n)+", lambda _: listed, text, count=1)


if __name__ == "__main__":
    TARGET.write_text(recipe(), encoding="utf-8")
