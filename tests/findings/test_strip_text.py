"""Texts of the figures at the head of a report: each number from counts, each unit once."""

import measurements
import packing
import pytest
from helpers import study_of

import sparsity_report as sr
from sparsity_report.findings.strip_text import strip_texts


def texts(study):
    """Return number and note of each figure by its title, with plain spaces."""
    tiles = strip_texts(study.facts)
    assert len(tiles) == 4
    return {
        tile["title"]: (tile["number"].replace("\u202f", " "), tile["note"].replace("\u202f", " "))
        for tile in tiles
    }


def mega(number):
    return f"{number / 1e6:.2f}"


def prunings(weights, *shares, make=sr.masked):
    return sr.compare(
        sr.dense(weights), *(make(sr.global_magnitude(weights, share)) for share in shares)
    )


def sums(study, variant, column):
    return int(study.layers[study.layers["variant"] == variant][column].sum())


def scored(study, *levels):
    names = study.variants["variant"][: len(levels)]
    frame = measurements.quality([(0.0, level) for level in levels], names)
    return measurements.put_in(study, quality=frame)


def test_several_prunings_have_ranges(demo):
    study = scored(prunings(demo, 0.3, 0.6), 10.0, 12.34, 57.6)
    shown = texts(study)
    size, flops = (
        [sums(study, name, column) for name in ("Dense", "Masked30", "Masked60")]
        for column in ("stored_bytes", "useful_flops_per_token")
    )
    matrices = study.layers[study.layers["prunable"] & (study.layers["variant"] != "Dense")]
    zeros = (matrices["weight_total"] - matrices["weight_nonzero"]).groupby(matrices["variant"])
    bits = demo_bits(study)
    kept = [size[0] - 4 * int(number) + bits for number in zeros.sum()]
    assert shown["Perplexity"] == ("10.0 → 12.3–57.6", "some.txt, windows of 64 tokens")
    assert (
        shown["Size as bitmask"][0]
        == f"{mega(size[0])} MB → {mega(min(kept))}–{mega(max(kept))} MB"
    )
    assert shown["Useful FLOPs per token"] == (
        f"{mega(flops[0])} M → {flops[2] / 1e3:.0f} k–{mega(flops[1])} M",
        f"two per nonzero weight; dense kernels perform {mega(flops[0])} M",
    )


def demo_bits(study):
    rows = study.layers[study.layers["prunable"] & (study.layers["variant"] == "Dense")]
    return int(rows["weight_total"].sum()) // 8


def test_thousands_are_not_taken_for_units(demo):
    """Numbers that end alike keep what stands before their end."""
    study = scored(prunings(demo, 0.3, 0.6), 15.0, 1023.0, 1023.4)
    assert texts(study)["Perplexity"][0] == "15.0 → 1 023"
    alike = scored(prunings(demo, 0.6), 1000.0, 1000.4)
    assert texts(alike)["Perplexity"][0] == "1 000 → 1 000"


def test_a_perplexity_of_guessing_is_no_number(demo):
    """The demo model chooses among 1,024 tokens."""
    study = scored(prunings(demo, 0.3, 0.6), 10.0, 12.5, 66_600.0)
    assert texts(study)["Perplexity"][0] == "10.0 → 12.5 to worse than uniform guessing"
    study = scored(prunings(demo, 0.9), 10.0, 1024.0)
    assert texts(study)["Perplexity"][0] == "10.0 → worse than uniform guessing"


@pytest.mark.parametrize(
    ("cells", "number", "note"),
    [
        ({}, "0.40 ×", "0.38 to 0.42, 1 token at a time"),
        ({"realised_low": 0.95, "realised_high": 1.01}, "no difference", "within timing noise"),
        ({"others": 3.9}, "not measurable here", "the machine was busy"),
        ({"runs": 14}, "not measurable here", "too few runs"),
        ({"control_low": 1.1, "control_high": 1.3}, "not measurable here",
         "identical kernels differed"),
        ({"control_low": None, "control_high": None, "control": None}, "not measurable here",
         "no control measurement"),
    ],
)  # fmt: skip
def test_a_speed_has_a_reason_where_it_has_no_number(demo, cells, number, note):
    frame = measurements.latency()
    study = measurements.put_in(study_of(demo), latency=frame.assign(**cells))
    assert texts(study)["Speed"] == (number, note)


def test_masks_run_dense_kernels(demo):
    study = prunings(demo, 0.3)
    frame = measurements.latency()
    frame = frame[frame["variant"] != "CSR30"]
    assert texts(measurements.put_in(study, latency=frame))["Speed"] == (
        "unchanged", "masked runs dense kernels",
    )  # fmt: skip


def test_accuracy_of_seven_tasks_without_a_perplexity(demo):
    study = study_of(demo).with_measured(tasks=measurements.seven("CSR30", "some/demo", 0.0625))
    values = (0.75, 0.625, 0.5, 0.6875, 0.71875, 0.375, 0.3125)
    mean = 100 * (sum(values) / 7 - 0.0625)
    assert texts(study)["Mean zero-shot accuracy"][0] == f"{mean:.1f} %"


def test_packed_weights_say_what_they_are_unpacked_to(tmp_path):
    folder, _ = packing.packed_llama(tmp_path, "gptq-4-v1")
    study = study_of(sr.load(folder, name="packed"), 0.5)
    in_file = study.totals["file_bytes"].iloc[0] / 1e3
    storage = study.storage.query("variant == 'CSR50' and scope == 'model'").set_index("layout")
    assert texts(study)["Size as bitmask"] == (
        f"{in_file:.1f} kB → {storage.loc['bitmask', 'bytes'] / 1e3:.0f} kB",
        "whole model, packed → unpacked to float32",
    )


def test_zeros_that_were_there_before_are_no_pruning(demo):
    """The figures of further pruning start at the model as it was opened."""
    module = sr.masked(sr.global_magnitude(demo, 0.5)).module()
    study = scored(prunings(sr.load(module, name="theirs"), 0.6), 12.0, 16.0)
    assert texts(study)["Perplexity"][0] == "12.0 → 16.0"
    assert "–" not in texts(study)["Size as bitmask"][0]


def test_an_unpruned_model_has_its_sizes(demo):
    total = sum(p.numel() for p in demo.module().parameters())
    prunable = sum(p.total for p in demo.prunable)
    assert texts(sr.compare(sr.dense(demo))) == {
        "Quality": ("not measured", "run with --perplexity"),
        "Parameters": (f"{total / 1e3:.0f} k", ""),
        "Prunable weights": (f"{prunable / 1e3:.0f} k", ""),
        "Size": (f"{mega(4 * total)} MB", "whole model, float32"),
    }
