"""Each kind of number in one way: thin spaces in cells, the language's space in sentences."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from sparsity_report.words import names, numbers
from sparsity_report.words.language import Language, speaking
from sparsity_report.words.sentences import say

THIN = "\u202f"
UNKNOWN = [None, math.nan, np.float64("nan"), pd.NA]
CELLS = [
    (numbers.count(1234567), "1|234|567"),
    (numbers.count(np.int64(999)), "999"),
    (numbers.percent(0.29449), "29.4|%"),
    (numbers.percent(0.12345, 2), "12.35|%"),
    (numbers.percent(0.5, 0), "50|%"),
    (numbers.percent(0), "0.0|%"),
    (numbers.percent(1), "100.0|%"),
    (numbers.percent(1e-9), "<|0.1|%"),
    (numbers.percent(1 - 1e-9), ">|99.9|%"),
    (numbers.percent(-0.0213, 2), "-2.13|%"),
    (numbers.level(0.29), "29|%"),
    (numbers.level(0.125), "12.5|%"),
    (numbers.scaled(999), "999"),
    (numbers.scaled(1_000), "1.00|k"),
    (numbers.scaled(12_345_678, "B"), "12.3|MB"),
    (numbers.scaled(999_600, "B"), "1.00|MB"),
    (numbers.scaled(7e9, "FLOPs"), "7.00|GFLOPs"),
    (numbers.times(1.3349), "1.33|×"),
    (numbers.duration(0), "0|µs"),
    (numbers.duration(0.0123), "12.3|ms"),
    (numbers.duration(2.5), "2.50|s"),
    (numbers.span(0.0009, 0.0011), "900|µs–1.10|ms"),
    (numbers.shape((3072, 768)), "3072|×|768"),
    (numbers.figures(-0.25, "+.4f"), "-0.2500"),
]


@pytest.mark.parametrize(("written", "expected"), CELLS)
def test_cells_have_thin_spaces(written, expected):
    assert written == expected.replace("|", THIN)


@pytest.mark.parametrize("value", UNKNOWN, ids=repr)
def test_the_unknown_is_a_dash(value):
    one = (
        numbers.count, numbers.percent, numbers.level, numbers.scaled, numbers.times,
        numbers.duration,
    )  # fmt: skip
    assert [write(value) for write in one] == ["–"] * len(one)
    assert numbers.figures(value, ".2f") == "–"
    assert numbers.span(value, 1) == numbers.span(1, value) == "–"
    assert not numbers.known(value)


def test_sentences_have_the_space_of_the_language():
    template = "{share:percent}, {share:level}, {size:scaled B}, {ratio:times}, {time:duration}"
    values = {"share": 0.305, "size": 2_500_000, "ratio": 1.3349, "time": 0.004}
    assert say(template, **values) == "30.5 %, 30.5 %, 2.50 MB, 1.33 ×, 4.00 ms"
    with speaking("fr"):
        french = say(template, **values)
    assert french == "30,5|%, 30,5|%, 2,50|Mo, 1,33|×, 4,00|ms".replace("|", "\u00a0")


def test_cells_have_the_signs_of_the_language():
    with speaking("fr"):
        assert numbers.percent(0.3) == f"30,0{THIN}%"
        assert numbers.count(1234567) == f"1{THIN}234{THIN}567"
        assert numbers.figures(1234.5, ",.1f") == f"1{THIN}234,5"


def test_one_of_a_kind_is_singular():
    text = "{n:plural thread|threads}"
    assert [say(text, n=n) for n in (0, 1, 2, 1000, None)] == [
        "0 threads", "1 thread", "2 threads", "1\u202f000 threads", "– threads",
    ]  # fmt: skip
    with speaking(Language("fr", singular_below_two=True, sentences={text: "{n:plural fil|fils}"})):
        assert [say(text, n=n) for n in (0, 1.5, 2, [1], [0, 1])] == [
            "0 fil", "1.5 fil", "2 fils", "1 fil", "0 and 1 fils",
        ]  # fmt: skip


def test_names_are_said():
    assert names.layout_name("bsr_16") == "BSR 16 × 16"
    assert names.group_name("attention_linear") == "attention"
    assert names.method_name("my_own") == "my own"
    with speaking("fr"):
        assert names.group_name("lm_head") == "tête de sortie"
        assert names.layout_name("csr_int64") == "CSR à indices int64"
        assert names.tokens_name(1) == "1 jeton"


def test_words_need_no_library():
    code = "import sparsity_report.words.names, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "numpy", "markupsafe", "jinja2"} & set(run.stdout.split())
