"""Texts of the catalogue by key, so that tests do not depend on their wording."""

import re
import string
from decimal import ROUND_CEILING, Decimal
from functools import cache

import numpy as np

from sparsity_report.words.catalogue import catalogue

# Placeholders that hold another statement of the verdict, and keys of statements around others.
NESTED = ("claim", "other", "cause")
OUTER = ("verdict.at_sparsity", "verdict.of_unpacked", "verdict.while", "verdict.and")


def rule_of(threshold):
    """The shortest decimal from a float32 threshold up that is nearest to it in float32."""
    exact = Decimal(float(threshold))
    for digits in range(3, 10):
        unit = Decimal(1).scaleb(exact.adjusted() + 1 - digits)
        written = exact.quantize(unit, rounding=ROUND_CEILING)
        if np.float32(written) == np.float32(threshold):
            return f"{written.normalize():f}"
    raise AssertionError(f"{threshold} is no float32 number")


def fields(key):
    """Yield the literal text, name and format of each part of the text of a key."""
    for literal, name, spec, _ in string.Formatter().parse(catalogue()[key]):
        yield literal, name, spec or ""


@cache
def reader(key):
    """Return a pattern of the texts of a key; its groups are the placeholders.

    The first letter may be a capital.
    """
    pattern, names = "", set()
    for literal, name, spec in fields(key):
        pattern += re.escape(literal)
        if name is None:
            continue
        if spec.startswith("choose "):
            words = sorted(spec[7:].split("|"), key=len, reverse=True)
            pattern += f"(?:{'|'.join(map(re.escape, words))})"
            continue
        value = r"[-−\d\u202f–]+" if spec == "," else ".+?"
        pattern += f"(?P={name})" if name in names else f"(?P<{name}>{value})"
        names.add(name)
        if re.match("percent|level", spec):
            pattern += " %"
    return re.compile(re.sub("^[a-z]", lambda letter: f"(?i:{letter[0]})", pattern))


def wording(key, many=True, **texts):
    """Return the text of a key with values that are written already, shares without %."""
    text = ""
    for literal, name, spec in fields(key):
        text += literal
        if spec.startswith("choose "):
            text += spec[7:].split("|")[many]
        elif name is not None:
            text += texts[name] + (" %" if re.match("percent|level", spec) else "")
    return text


def values_of(text, key):
    """Return the values in a text of a key, as they are written, shares without %."""
    match = reader(key).fullmatch(text)
    assert match, f"{text!r} is no text of {key}"
    return match.groupdict()


def count_of(text, key, name):
    """Return the whole number that a value in a text of a key starts with."""
    return int(re.match(r"[\d\u202f]+", values_of(text, key)[name])[0].replace("\u202f", ""))


def of_key(texts, key):
    """Return the texts of a key, those among the statements of others included."""
    found = []
    for text in texts:
        if catalogue()[key].endswith(".") or not text.endswith("."):
            found += [text] if reader(key).fullmatch(text) else []
        else:
            found += [part for part in _parts(text) if reader(key).fullmatch(part)][:1]
    return found


def key_of(text, keys=None):
    """Return the key of a text: of those whose pattern it has, the one with most fixed text."""
    fitting = _fitting(text, catalogue() if keys is None else keys)
    assert fitting, f"no key has the text {text!r}"
    return fitting[0]


def statements_of(text, keys):
    """Return the keys and values of the statements in a finding, those inside others included."""
    finished = [key for key in keys if catalogue()[key].endswith(".")]
    found = _statement(text, finished) or _statements(
        text.removesuffix(".").split(". "), set(keys) - set(finished)
    )
    assert found, f"no key has the text {text!r}"
    return found


def _statements(sentences, keys):
    """Return the statements of consecutive sentences, the shortest first; None without keys."""
    for number in range(1, len(sentences) + 1):
        first = _statement(". ".join(sentences[:number]), keys)
        rest = _statements(sentences[number:], keys) if sentences[number:] else []
        if first and rest is not None:
            return first + rest
    return None


def _statement(text, keys):
    """Return a statement and those inside it; None if one of them has no key."""
    fitting = _fitting(text, keys)
    for key in [*(key for key in OUTER if key in fitting), *fitting]:
        values = values_of(text, key)
        inner = [_statement(values[name], keys) for name in NESTED if name in values]
        if None not in inner:
            return [(key, values), *(each for part in inner for each in part)]
    return None


def _parts(text):
    """Yield the runs of sentences of a text, the shortest first."""
    sentences = text.removesuffix(".").split(". ")
    for number in range(1, len(sentences) + 1):
        for start in range(len(sentences) - number + 1):
            yield ". ".join(sentences[start : start + number])


def _fitting(text, keys):
    """Return the keys whose pattern a text has, the one with most fixed text first."""
    fitting = sorted(key for key in keys if reader(key).fullmatch(text))
    return sorted(fitting, key=lambda key: -sum(len(literal) for literal, *_ in fields(key)))


def check_length(verdict):
    """Check that a verdict has at most two sentences of at most 25 words."""
    sentences = re.split(r"(?<=\.)\s+", verdict.replace("\u202f", "_"))
    assert len(sentences) <= 2, verdict
    assert ";" not in verdict
    for sentence in sentences:
        assert len(re.findall(r"(?:^|[\s(])[^\W_]\S*", sentence)) <= 25, sentence
