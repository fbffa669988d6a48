"""The published format: its schema and its page; real, damaged, earlier and later files."""

import json
import re
from dataclasses import replace

import json_schema
import jsonschema
import pairs
import pytest
import saved
from wording import values_of

import sparsity_report as sr
from sparsity_report.study.files.json_files import digest_of
from sparsity_report.study.schema import TABLES


def test_the_schema_is_that_of_the_program():
    """If not: ``python tests/support/json_schema.py``."""
    text = json_schema.FILE.read_text(encoding="utf-8")
    assert text == json_schema.schema_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    kind, version, *_ = re.split("[-.]", json_schema.FILE.name)
    assert json.loads(text)["$id"] == f"urn:sparsity-report:{kind}:{version}"


def test_the_page_has_the_columns_of_the_schema():
    text = json_schema.PAGE.read_text(encoding="utf-8")
    assert text == json_schema.page_text(text)
    parts = json.loads(json_schema.schema_text())["properties"].values()
    tables = [part.get("anyOf", [part])[0] for part in parts]
    rows = [t["properties"]["rows"] for t in tables if "rows" in t.get("properties", {})]
    columns = {cell["title"] for row in rows for cell in row["items"]["prefixItems"]}
    assert len(columns) > 150
    assert {name for name in columns if f"| `{name}` |" not in text} == set()
    assert json_schema.FILE.name in text


def valid(path):
    """Validate a file by the published schema; return its content."""
    data = json.loads(path.read_text(encoding="utf-8"))
    schema = json.loads(json_schema.FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(data)
    return data


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A study with every table, as a file."""
    removed = [pairs.gone("channel", pairs.LOST, 3, 512, 2)]
    two = pairs.two_policies(sr.load(), removed)
    study, history = saved.study(), sr.track(sr.load().module()).history.head(1)
    history = history.assign(module_name=study.layers["module_name"].iloc[0])
    study = replace(study, matches=two.matches, removed=two.removed, history=history)
    return study.save(tmp_path_factory.mktemp("saved") / "study.json")


def test_saved_files_are_valid(everything):
    assert [name for name, part in valid(everything).items() if part is None] == []


def test_studies_of_models_are_valid(demo_study, smollm2, tmp_path):
    for study in (demo_study, sr.compare(sr.dense(smollm2))):
        valid(study.save(tmp_path / "s.json"))


def damaged(part, row, column, value):
    def change(data):
        cells = data[part]["rows"][row]
        cells[data[part]["columns"].index(column)] = value

    return change


DAMAGES = [
    lambda d: d.pop("layers"), lambda d: d.update(version=1),
    lambda d: d.update(format="sparsity-report/pair"), lambda d: d.update(digest="0" * 63),
    lambda d: d.update(context=0), lambda d: d["layers"]["columns"].reverse(),
    lambda d: d["layers"]["columns"].pop(), lambda d: d["layers"]["rows"][0].pop(),
    damaged("layers", 1, "total", None), damaged("layers", 1, "total", 1.5),
    damaged("layers", 1, "total", -1), damaged("layers", 1, "sparsity", 1.5),
    damaged("layers", 1, "group", "another"), damaged("layers", 1, "shape", [-1]),
    damaged("variants", 0, "layout", "bsr"), damaged("latency", 0, "seconds", 0),
    damaged("patterns", 0, "head_sparsity", [2]),
    lambda d: d["levels"]["weight_nonzero"][0].__setitem__(0, "many"), lambda d: d.pop("removed"),
    lambda d: d.update(survival=0), damaged("matches", 0, "alignment", "guessed"),
    damaged("removed", 0, "certainty", 2),
]  # fmt: skip


@pytest.mark.parametrize("change", DAMAGES)
def test_the_schema_refuses(everything, tmp_path, change):
    data = json.loads(everything.read_text(encoding="utf-8"))
    change(data)
    (tmp_path / "damaged.json").write_text(json.dumps(data))
    with pytest.raises(jsonschema.ValidationError):
        valid(tmp_path / "damaged.json")


def test_additions_of_later_releases_are_left_out_and_named(everything, tmp_path):
    """A later release may add a section, and a column at the end of tables."""
    value = sr.read_study(everything, strict=True)
    data = json.loads(everything.read_text(encoding="utf-8"))
    tables = ["variants", "layers", "totals", "groups", "latency", "patterns", "matches", "changes"]
    data["funding"] = {"columns": ["by"], "rows": [["somebody"]]}
    for table in tables:
        data[table]["columns"].append("shade")
        for row in data[table]["rows"]:
            row.append([None, "new"])
    data["digest"] = digest_of(data)
    path = tmp_path / "later.json"
    path.write_text(json.dumps(data))
    valid(path)
    read = sr.read_study(path, strict=True)
    (note,) = [note for note in read.notes if note not in value.notes]
    names = {"funding", *(f"{table}.shade" for table in tables)}
    said = values_of(note, "note.unread_parts")["names"]
    assert sum(name in said for name in names) == 3
    assert said.endswith(f" and {len(names) - 3} more")
    again = json.loads(read.save(tmp_path / "again.json").read_text(encoding="utf-8"))
    parts = [name for name in again if isinstance(again[name], dict)]
    original = json.loads(everything.read_text(encoding="utf-8"))
    assert {name: again[name] for name in parts} == {name: original[name] for name in parts}
    assert "funding" not in again


def test_files_of_earlier_releases_may_lack_the_last_columns(everything, tmp_path):
    data = json.loads(everything.read_text(encoding="utf-8"))
    for part in ("layers", "quality"):
        data[part]["columns"].pop()
        for row in data[part]["rows"]:
            row.pop()
    data["digest"] = digest_of(data)
    (tmp_path / "earlier.json").write_text(json.dumps(data))
    read = sr.read_study(tmp_path / "earlier.json", strict=True)
    assert read.layers[[*TABLES["layers"]][-1]].isna().all()
    known = sr.read_study(everything).quality
    assert read.quality.iloc[:, :-1].equals(known.iloc[:, :-1])
    data["layers"]["columns"].pop()
    (tmp_path / "earlier.json").write_text(json.dumps(data))
    with pytest.raises(sr.SparsityReportError, match="is damaged"):
        sr.read_study(tmp_path / "earlier.json")


def test_names_of_unread_parts_are_text(everything, tmp_path):
    data = json.loads(everything.read_text(encoding="utf-8"))
    data["</script><b>"] = 1
    data["digest"] = digest_of(data)
    (tmp_path / "s.json").write_text(json.dumps(data))
    page = sr.write_report(sr.read_study(tmp_path / "s.json"), tmp_path / "r.html")
    assert "</script><b>" not in page.read_text(encoding="utf-8")
    assert "&lt;/script&gt;&lt;b&gt;" in page.read_text(encoding="utf-8")
