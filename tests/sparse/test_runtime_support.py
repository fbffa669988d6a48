"""The table of runtimes: complete, dated, with a source for every verdict."""

import datetime
import re

import pytest

from sparsity_report.sparse import runtime_support as table

CELLS = [cell for runtime in table.RUNTIMES.values() for cell in runtime.cells.values()]
TODAY = datetime.datetime.now(datetime.UTC).date()
STORED = ("sparse-24-bitmask", "sparse-bitmask", "csr", "gguf", "semi-structured")


def test_every_runtime_has_a_cell_for_every_layout():
    required = "transformers vllm tensorrt-llm llama.cpp onnxruntime openvino deepsparse mlx"
    assert {*required.split(), "executorch"} <= {*table.RUNTIMES}
    assert {"zeros", "2:4", "uneven", *STORED} == {*table.LAYOUTS}
    for runtime in table.RUNTIMES.values():
        assert tuple(runtime.cells) == table.LAYOUTS
        assert runtime.name
        assert runtime.version


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.runtime} {cell.layout}")
def test_verdicts_have_sources_and_dates(cell):
    assert cell.verdict in table.VERDICTS
    looked_at = datetime.date.fromisoformat(cell.looked_at)
    assert datetime.date(2026, 11, 1) <= looked_at <= TODAY
    assert looked_at <= datetime.date.fromisoformat(table.LOOKED_AT) <= TODAY
    known = cell.verdict != "unknown"
    assert bool(cell.source) == bool(cell.version) == known
    assert cell.source is None or re.fullmatch(r"https://[\w./-]+", cell.source)
    assert cell.note is None or known


def test_sparse_kernels_for_zeros_name_their_option():
    # The sentence of the report calls them optional.
    for layout in ("zeros", "2:4"):
        cells = [table.RUNTIMES[key].cells[layout] for key in table.RUNTIMES]
        used = [cell for cell in cells if cell.verdict == "sparse"]
        assert used
        assert all(cell.note or table.RUNTIMES[cell.runtime].ended for cell in used)


def test_refused_formats_never_count_as_used():
    # compressed-tensors removed its sparse formats in 2026; only ended runtimes could differ.
    for runtime in table.RUNTIMES.values():
        for layout in ("sparse-24-bitmask", "sparse-bitmask"):
            assert runtime.cells[layout].verdict in {"refused", "misread", "unknown"}


@pytest.mark.parametrize(
    ("measured", "layouts"),
    [({}, ()), ({"packings": ["Q4_1", "Q8_0"], "is_gguf": True}, ()),
     ({"packings": ["Q4_1"], "is_gguf": True, "has_zeros": True, "is_2_4": True}, ("gguf",)),
     ({"is_gguf": True, "has_zeros": True}, ("gguf",)),
     ({"packings": ["gptq-4bit"], "has_zeros": True}, ()),
     ({"packings": ["sparse-bitmask"], "has_zeros": True}, ("sparse-bitmask",)),
     ({"packings": ["sparse-24-bitmask"], "is_2_4": True}, ("sparse-24-bitmask",)),
     ({"is_csr": True, "has_zeros": True, "is_2_4": True}, ("csr",)),
     ({"has_zeros": True, "is_2_4": True, "is_uneven": True}, ("2:4", "uneven")),
     ({"is_2_4": True}, ()), ({"is_uneven": True}, ("uneven",))],
)  # fmt: skip
def test_layouts_follow_from_measurements(measured, layouts):
    assert table.layouts_of(**measured) == layouts
