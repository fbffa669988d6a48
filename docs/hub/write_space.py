"""Write a static Space: a report with its viewer, the study behind it, and the badge.

``python write_space.py study.json space`` writes a folder that ``hf upload`` puts on the Hub.
"""

import shutil
import sys
from pathlib import Path

import yaml

import sparsity_report as sr


def write_space(study_file: str, folder: str) -> Path:
    """Write the files of the Space and return their folder."""
    study, space = sr.read_study(study_file), Path(folder)
    space.mkdir(parents=True, exist_ok=True)
    settings = {
        "title": f"Sparsity of {study.variants['model'].iloc[0]}",
        "sdk": "static",
        "app_file": "index.html",
        "pinned": False,
        "tags": ["sparsity-report", "pruning"],
    }
    card = sr.write_checklist(study, space / "README.md", link="study.json")
    text = card.read_text(encoding="utf-8")
    card.write_text(f"---\n{yaml.safe_dump(settings)}---\n\n{text}", encoding="utf-8")
    sr.write_report(study, space / "index.html")
    sr.write_checklist(study, space / "badge.svg", link="study.json")
    shutil.copyfile(study_file, space / "study.json")
    return space


if __name__ == "__main__":
    write_space(*sys.argv[1:])
