"""Write the bill of materials (CycloneDX) of what a wheel holds beside the package's own code.

    python docs/tools/sbom.py          # docs/packaging/sparsity-report.cdx.json

Hatchling copies it to ``.dist-info/sboms`` (PEP 770). A test compares it with the files.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "docs" / "packaging" / "sparsity-report.cdx.json"
FONTS = Path("sparsity_report/draw/typeface")
DEMO = Path("sparsity_report/demo")


def bill() -> dict[str, Any]:
    """Return the bill: the fonts and the demo model, each with the digests of its files."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": "sparsity-report",
                "name": "sparsity-report",
                "licenses": [{"expression": "Apache-2.0 AND OFL-1.1"}],
            }
        },
        "components": [
            {
                "type": "data",
                "bom-ref": "liberation-sans",
                "name": "Liberation Sans",
                "version": "2.1.5",
                "pedigree": {"notes": "Subset by docs/tools/subset_fonts.py, named Sparsity Sans."},
                "copyright": "2010 Google Corporation; 2012 Red Hat, Inc.",
                "licenses": [{"license": {"id": "OFL-1.1"}}],
                "externalReferences": [
                    {"type": "vcs", "url": "https://github.com/liberationfonts/liberation-fonts"}
                ],
                "components": files(FONTS),
            },
            {
                "type": "machine-learning-model",
                "bom-ref": "demo",
                "name": "demo model of sparsity-report",
                "description": "OPT of 957,440 parameters, trained by docs/tools/train_demo.py.",
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "components": files(DEMO),
            },
        ],
        "dependencies": [
            {"ref": "sparsity-report", "dependsOn": ["demo", "liberation-sans"]},
        ],
    }


def files(folder: Path) -> list[dict[str, Any]]:
    """Return a component per file of a folder."""
    paths: Iterable[Path] = sorted(path for path in (ROOT / folder).iterdir() if path.is_file())
    return [
        {
            "type": "file",
            "bom-ref": (folder / path.name).as_posix(),
            "name": (folder / path.name).as_posix(),
            "hashes": [
                {"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}
            ],
        }
        for path in paths
    ]


if __name__ == "__main__":
    TARGET.write_text(json.dumps(bill(), indent=1) + "\n", encoding="utf-8")
