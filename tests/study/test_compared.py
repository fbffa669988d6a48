"""Heads, experts and rows inside the matrices of a variant."""

import pandas as pd
import torch

import sparsity_report as sr
from sparsity_report.study.derived.heads_experts import dead, parts


def test_dead_rows_and_columns_are_counted():
    model = torch.nn.Sequential(torch.nn.Linear(6, 4, bias=False), torch.nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].weight[:, 2:5] = 0
        model[1].weight[:] = 0
    found = dead(sr.weight_patterns(sr.dense(sr.load(model))))
    assert found.rows.to_dict() == {"0": 1, "1": 4}
    assert found.columns.to_dict() == {"0": 3, "1": 4}
    assert found.layers == ["1"]


def test_heads_come_as_they_were_counted(demo):
    study = sr.compare(sr.masked(sr.global_magnitude(demo, 0.5)), patterns=True)
    heads = {part.projection: part.rows for part in study.facts.parts("Masked50")}
    assert set(heads) == {"q_proj", "k_proj", "v_proj", "out_proj"}
    counted = study.patterns.set_index("module_name")["head_sparsity"][
        "model.decoder.layers.1.self_attn.q_proj"
    ]
    shown = heads["q_proj"][heads["q_proj"]["block"] == 1].sort_values("part")["sparsity"]
    assert shown.tolist() == list(counted)


def test_matrices_of_an_expert_are_added():
    frame = pd.DataFrame(
        {
            "module_name": "m", "block": pd.array([0] * 4, dtype="Int64"),
            "expert": pd.array([0, 1, 0, 1], dtype="Int64"), "head_sparsity": None,
            "rows": [2, 2, 6, 6], "columns": 1, "sparsity": [0.5, 0.0, 1.0, 0.0],
        }
    )  # fmt: skip
    (part,) = parts(frame, {})
    assert part.rows.values.tolist() == [[0, 0, 7 / 8], [0, 1, 0]]
