"""Files for the Hub and Model Explorer: cards as the Hub reads them, nodes as torch names them."""

import json
import re

import numpy as np
import pytest
import torch
from helpers import Tiny, study_of
from huggingface_hub import ModelCard
from torch import nn

import sparsity_report as sr


def test_the_card_has_metadata_verdict_totals_and_protocol(demo_study, tmp_path):
    path = sr.write_model_card(demo_study, tmp_path / "README.md", base_model="org/base")
    card = ModelCard.load(path)
    assert card.data.base_model == "org/base"
    assert card.data.tags == ["sparsity-report", "pruned"]
    assert card.data.library_name is None
    text = card.content.replace("\u202f", " ").replace("\\", "")
    assert f"# {sr.summarize(demo_study)[0]}".replace("\u202f", " ") in text
    total = demo_study.totals.iloc[0]["total"]
    assert f"| of | {total:,} |".replace(",", " ") in text
    assert demo_study.fingerprint in text
    assert "Appendix" not in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Results", "## Totals and groups", "## Method"]


def test_a_card_keeps_what_the_replaced_one_says(tmp_path):
    weights = sr.load()
    pruning = sr.global_magnitude(weights, 0.5)
    folder = sr.write_checkpoint(sr.masked(pruning), tmp_path / "m", base_model="org/base")
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace("tags:", "license: mit\ntags:", 1))
    study = sr.compare(sr.dense(weights), sr.masked(pruning))
    data = ModelCard.load(sr.write_model_card(study, readme)).data
    assert (data.base_model, data.license, data.library_name) == ("org/base", "mit", "transformers")
    other = sr.write_model_card(study, folder / "card.md")
    assert ModelCard.load(other).data.base_model is None
    assert (
        ModelCard.load(sr.write_model_card(study, readme, base_model="b/c")).data.base_model
        == "b/c"
    )
    unpruned = sr.write_model_card(sr.compare(sr.dense(weights)), tmp_path / "card.md")
    assert ModelCard.load(unpruned).data.tags == ["sparsity-report"]
    with pytest.raises(sr.SparsityReportError, match=r"base_model='\./x' is not a Hub id"):
        sr.write_model_card(study, readme, base_model="./x")


def test_names_are_text_on_a_card(tmp_path):
    name = "a|b\n---\n# <script>x](y)"
    study = sr.compare(sr.dense(sr.load(Tiny(), name=name), name="<b>"))
    card = ModelCard.load(sr.write_model_card(study, tmp_path / "README.md"))
    assert card.data.to_dict() == {"tags": ["sparsity-report"]}
    assert "<script>" not in card.text.replace(r"\<", "")
    assert "<b>" not in card.text.replace(r"\<", "")


def test_node_data_are_the_shares_of_each_exported_weight(tmp_path):
    weights = sr.load()
    study = study_of(weights, 0.5)
    data = json.loads(sr.write_node_data(study, tmp_path / "n.json", variant="CSR50").read_text())
    model = sr.csr(sr.global_magnitude(weights, 0.5)).weights.module().eval()
    sr.global_magnitude(weights, 0.5).apply_(model)
    ids = torch.zeros(1, 8, dtype=torch.long)
    with torch.no_grad():
        graph = torch.export.export(model, (ids,), {"use_cache": False}, strict=False)
    nodes = {node.name for node in graph.graph.nodes}
    exported = {key for key in data["results"] if key.startswith("p_")}
    assert exported
    assert exported <= nodes
    tensors = graph.state_dict
    for spec in graph.graph_signature.input_specs:
        if spec.arg.name in exported:
            tensor = tensors[spec.target].detach().numpy()
            share = 1 - np.count_nonzero(tensor) / tensor.size
            module = spec.target.removesuffix(".weight")
            for key in (spec.arg.name, module):
                assert data["results"][key]["value"] == pytest.approx(share, abs=1e-12)
    linear = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)} - {"lm_head"}
    assert linear <= set(data["results"])


def test_node_data_have_one_scale_of_colors(tmp_path):
    data = json.loads(
        sr.write_node_data(study_of(sr.load(Tiny()), 0.3), tmp_path / "n.json").read_text()
    )
    ends = [step["value"] for step in data["thresholds"]]
    assert ends == pytest.approx([0.05 * n for n in range(1, 21)])
    assert all(re.fullmatch("#[0-9a-f]{6}", step["bgColor"]) for step in data["thresholds"])
    assert len({step["bgColor"] for step in data["thresholds"]}) == 20
    assert (data["hideAggregatedStats"], data["hideInChildrenStatsTable"]) == (["sum", "avg"], True)
    with pytest.raises(sr.SparsityReportError, match="no variant 'x'"):
        sr.write_node_data(study_of(sr.load(Tiny()), 0.3), tmp_path / "n.json", variant="x")


def test_ids_that_two_modules_share_are_left_out(tmp_path):
    model = nn.Module()
    model.add_module("a_b", nn.Linear(3, 4))
    model.add_module("a", nn.Module())
    model.a.add_module("b", nn.Linear(3, 4))
    model.add_module("c", nn.Linear(3, 4))
    path = sr.write_node_data(sr.compare(sr.dense(model)), tmp_path / "n.json")
    assert set(json.loads(path.read_text())["results"]) == {"a_b", "a.b", "c", "p_c_weight"}
