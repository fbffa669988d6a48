"""Each kind of number in one way: thin spaces in cells, a plain space in sentences."""

import math
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sparsity_report.words import number_format, value_formats
from sparsity_report.words.catalogue import catalogue
from sparsity_report.words.sentences import say

THIN = "\u202f"
UNKNOWN = [None, math.nan, np.float64("nan"), pd.NA]
CELLS = [
    (number_format.count(1234567), "1|234|567"), (number_format.count(np.int64(999)), "999"),
    (number_format.percent(0.29449), "29.4|%"), (number_format.percent(0.12345, 2), "12.35|%"),
    (number_format.percent(0.5, 0), "50|%"), (number_format.percent(0), "0.0|%"),
    (number_format.percent(1), "100.0|%"), (number_format.percent(0.0004), "<|0.1|%"),
    (number_format.percent(0.9996), ">|99.9|%"), (number_format.percent(-0.0213, 2), "-2.13|%"),
    (number_format.level(0.29), "29|%"), (number_format.level(0.125), "12.5|%"),
    (number_format.scaled(999, "B"), "999|B"), (number_format.scaled(999.6, "B"), "1.00|kB"),
    (number_format.scaled(1_000), "1.00|k"), (number_format.scaled(12_345_678, "B"), "12.3|MB"),
    (number_format.scaled(999_600, "B"), "1.00|MB"),
    (number_format.scaled(7e9, "FLOPs"), "7.00|GFLOPs"), (number_format.scaled(10**15), "1.00|P"),
    (number_format.times(1.3349), "1.33|×"), (number_format.duration(0), "0|µs"),
    (number_format.duration(0.0123), "12.3|ms"), (number_format.duration(2.5), "2.50|s"),
    (number_format.duration(0.9996), "1.00|s"), (number_format.duration(0.9994), "999|ms"),
    (number_format.duration(9.999e-4), "1.00|ms"), (number_format.duration(1e-4), "100|µs"),
    (number_format.duration(1.234e-8), "0.0123|µs"),
    (value_formats.REALISED.write((1.041, 1.02, 1.06)), "1.04|× (1.02–1.06)"),
    (value_formats.REALISED.write((1.001, 0.9993, 1.0032)), "1.001|× (0.999–1.003)"),
    (value_formats.REALISED.write((1.01, 1.0003, 1.02)), "1.0100|× (1.0003–1.0200)"),
    (value_formats.REALISED.write((None, 0.93, 1.03)), "(0.93–1.03|×)"),
    (number_format.span(0.0009, 0.0011), "900|µs–1.10|ms"),
    (number_format.shape((3072, 768)), "3072|×|768"),
    (number_format.figures(-0.25, "+.4f"), "-0.2500"),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_written_threshold_selects_what_it_pruned(dtype):
    """In comparisons of the dtype and of float64, by neighbors of random numbers."""
    magnitudes = np.abs(np.random.default_rng(1).normal(size=500)).astype(dtype)
    magnitudes[:2] = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    for pruned in magnitudes:
        with np.errstate(over="ignore"):
            kept = np.nextafter(pruned, np.inf, dtype=dtype)
        written = number_format.threshold(float(pruned))
        assert pruned <= dtype(written) < kept
        assert float(pruned) <= float(written) < float(kept)


@pytest.mark.parametrize("name", ["p_w50", "half", "élan"])
def test_a_name_keeps_its_case_where_a_sentence_begins(name):
    claim = say("verdict.no_zeros", variant=name, number=8)
    came = say("verdict.came_pruned", model=name, share=0.5, number=8)
    joined = say("verdict.while", claim=came, other=claim)
    text = say("format.paragraph", statements=[joined, say("verdict.masked"), came])
    assert text.startswith(f"{name} came with 50.0 % of its 8 prunable weights zero, while None of")
    assert f". Masking saves no space. {name} came with" in text


@pytest.mark.parametrize(("written", "expected"), CELLS)
def test_cells_have_thin_spaces(written, expected):
    assert written == expected.replace("|", THIN)


@pytest.mark.parametrize("value", UNKNOWN, ids=repr)
def test_the_unknown_is_a_dash(value):
    one = (
        number_format.count, number_format.percent, number_format.level, number_format.scaled,
        number_format.times,
        number_format.duration,
    )  # fmt: skip
    assert [write(value) for write in one] == ["–"] * len(one)
    assert number_format.figures(value, ".2f") == "–"
    assert number_format.span(value, 1) == number_format.span(1, value) == "–"
    assert not number_format.known(value)


@pytest.fixture
def write(monkeypatch):
    """A function that fills a template that the catalogue does not hold."""

    def fill(template, **values):
        monkeypatch.setitem(catalogue(), "test", template)
        return say("test", **values)

    return fill


def test_sentences_have_a_plain_space(write):
    template = "{share:percent}, {share:level}, {size:scaled B}, {ratio:times}, {time:duration}"
    values = {"share": 0.305, "size": 2_500_000, "ratio": 1.3349, "time": 0.004}
    assert write(template, **values) == "30.5 %, 30.5 %, 2.50 MB, 1.33 ×, 4.00 ms"


def test_one_of_a_kind_is_singular(write):
    text = "{n:plural thread|threads}"
    assert [write(text, n=n) for n in (0, 1, 2, 1000, None)] == [
        "0 threads", "1 thread", "2 threads", "1\u202f000 threads", "– threads",
    ]  # fmt: skip
    assert [write(text, n=n) for n in ([1], [0, 1])] == ["1 thread", "0 and 1 threads"]


def test_a_word_agrees_with_a_number_or_a_list(write):
    template = "{variants:names} {variants:choose sets|set}"
    assert write(template, variants=["A"]) == "A sets"
    assert write(template, variants=["A", "B"]) == "A and B set"
    assert [write("{n:choose is|are}", n=n) for n in (0, 1, 2)] == ["are", "is", "are"]


@pytest.mark.parametrize(
    ("template", "value", "expected"),
    [("{x:names variant}", ["A" * 50, "B"], f"{'A' * 39}… and B"),
     ("{x:some layout}", ["csr", "bsr_4"], "CSR and BSR 4 × 4"),
     ("{x:span .2f}", [0.5, 0.123, 0.3], "0.12 to 0.50"), ("{x:span .2f}", [0.501, 0.502], "0.50"),
     ("{x:span .2f}", [], ""), ("{x:points}", -0.05, "−5.0"),
     ("{x:part}", ("group", "mlp_linear"), "MLP"), ("{x:group}", "my rule", "my rule"),
     ("{x:group}", None, "–"), ("{x:sentence}.", say("format.yes"), "Yes."),
     ("{x}", say("audit.excluded_share", reason=say("format.no"), count=3), "3 in no")],
)  # fmt: skip
def test_values_are_written_by_the_format_of_the_placeholder(write, template, value, expected):
    assert write(template, x=value) == expected


def test_words_need_no_library():
    code = "import sparsity_report.words.display_names, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "numpy", "markupsafe", "jinja2"} & set(run.stdout.split())


def read_back(texts):
    """Return the numbers that a reader takes from quantities: a bare one has the next unit."""
    numbers, last = [], ""
    for text in reversed(texts):
        digits, prefix = re.fullmatch(rf"([\d.{THIN}]*\d)(?:{THIN}([kMGTP]?)B?)?", text).groups()
        last = last if prefix is None else prefix
        numbers.append(float(digits.replace(THIN, "")) * 1000 ** " kMGTP".index(last or " "))
    return numbers[::-1]


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=3), st.sampled_from(["", "B"]))
@example([1_835_008, 731_136, 1_363_148], "")
@example([500, 1_230], "")
@example([90_852_864, 90_937_492], "B")
def test_quantities_read_together_keep_their_units_and_differ(values, unit):
    texts = number_format.unit_once(number_format.quantities(values, unit))
    found = read_back(texts)
    assert found == [pytest.approx(value, rel=0.006) for value in values]
    assert len({*found}) == len({*values})


@given(st.floats(0.5, 2) | st.sampled_from([1.0, 1.0004, 0.9996, 1 + 2**-40, 1 - 2**-40]))
def test_no_exact_ratio_but_one_reads_as_one(ratio):
    number = float(number_format.multiple(ratio, " ").removesuffix(" ×"))
    assert (number == 1) == (ratio == 1)
    assert number == pytest.approx(ratio, abs=0.005)
