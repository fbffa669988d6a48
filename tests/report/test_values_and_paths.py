"""Functions that accept a value or the path of a saved one: both give the same, others one line."""

import hashlib
import re

import pytest

import sparsity_report as sr


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A study and a pair, with their files by kind."""
    weights = sr.load()
    pruning = sr.global_magnitude(weights, 0.5)
    values = {
        "study": sr.compare(sr.dense(weights), sr.masked(pruning)),
        "pair": sr.compare_checkpoints(weights, pruning),
    }
    folder = tmp_path_factory.mktemp("saved")
    return {kind: (value, value.save(folder / f"{kind}.json")) for kind, value in values.items()}


def content(folder):
    """Digests of the files of a folder by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def written(write, name=""):
    """A function that writes a value into a folder and returns what is in it."""

    def run(value, folder):
        folder.mkdir()
        write(value, folder / name)
        return content(folder)

    return run


def card(value, folder):
    """The text of a model card below its metadata, which know the files of an open model."""
    path = sr.write_model_card(value, folder.with_suffix(".md"))
    return path.read_text(encoding="utf-8").partition("\n---\n")[2]


ACCEPTS = {
    "summarize": ("study pair", lambda value, _: sr.summarize(value)),
    "explore": ("study pair", lambda value, _: sr.explore(value).layers().to_csv()),
    "write_csv": ("study", written(sr.write_csv)),
    "write_figures": ("study", written(sr.write_figures)),
    "write_report": ("study pair", written(sr.write_report, "report.md")),
    "write_model_card": ("study", card),
    "write_thesis": ("study pair", written(lambda v, f: sr.write_thesis(v, f / "kit"))),
}
CASES = [(name, kind) for name, (kinds, _) in ACCEPTS.items() for kind in kinds.split()]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_path_gives_what_the_value_gives(name, kind, saved, tmp_path):
    value, path = saved[kind]
    use = ACCEPTS[name][1]
    expected = use(value, tmp_path / "value")
    for number, given in enumerate((str(path), path)[: 1 + (name[:5] != "write")]):
        again = use(given, tmp_path / f"path{number}")
        if isinstance(expected, dict):
            # Metadata of a PDF or a PNG may hold the time of writing.
            expected, again = (
                {k: v for k, v in each.items() if k[-3:] != "pdf"} for each in (expected, again)
            )
        assert again == expected
        assert expected


@pytest.mark.parametrize("name", ACCEPTS)
def test_other_values_and_files_end_in_one_line_with_the_name_of_the_function(
    name, saved, tmp_path
):
    kinds, use = ACCEPTS[name]
    accepted = {type(saved[kind][0]).__name__ for kind in kinds.split()}
    with pytest.raises(sr.SparsityReportError, match=rf"^{name}: list is not .*; give a ") as error:
        use([], tmp_path / "a")
    assert accepted <= set(re.findall(r"\w+", str(error.value)))
    other = tmp_path / "other.json"
    other.write_text('{"format": "none"}')
    for number, path in enumerate((other, tmp_path / "missing.json", tmp_path)):
        with pytest.raises(sr.SparsityReportError) as error:
            use(path, tmp_path / f"b{number}")
        assert name in str(error.value) or path.name in str(error.value)
        assert "\n" not in str(error.value)
