"""Texts of the catalogue by key, so that tests do not depend on their wording."""

import re
import string
from functools import cache

from sparsity_report.words.catalogue import catalogue

# Placeholders that hold another statement of the verdict, and keys of statements around others.
NESTED = ("claim", "other", "cause")
OUTER = ("verdict.at_sparsity", "verdict.of_unpacked", "verdict.while", "verdict.and")


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
        pattern += f"(?P={name})" if name in names else f"(?P<{name}>.+?)"
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
    """Return the texts of a key."""
    return [text for text in texts if reader(key).fullmatch(text)]


def key_of(text, keys=None):
    """Return the key of a text: of those whose pattern it has, the one with most fixed text."""
    fitting = _fitting(text, catalogue() if keys is None else keys)
    assert fitting, f"no key has the text {text!r}"
    return fitting[0]


def statements_of(text, keys):
    """Return the key and values of a text, and of all statements inside it; None if it has none."""
    fitting = _fitting(text, keys)
    for key in [*(key for key in OUTER if key in fitting), *fitting]:
        values = values_of(text, key)
        inner = [statements_of(values[name], keys) for name in NESTED if name in values]
        if None not in inner:
            return [(key, values), *(each for part in inner for each in part)]
    return None


def statements_of_verdict(text, keys=None):
    """Return the keys and values of a verdict, sentence by sentence."""
    if keys is None:
        keys = {key for key in catalogue() if key.startswith("verdict.")} - {"verdict.sentences"}
    assert text.endswith(".")
    sentences = re.split(r"\. (?=[A-Z])", text.removesuffix("."))
    statements = [statements_of(sentence, keys) for sentence in sentences]
    assert None not in statements, text
    return [each for part in statements for each in part]


def _fitting(text, keys):
    """Return the keys whose pattern a text has, the one with most fixed text first."""
    fitting = sorted(key for key in keys if reader(key).fullmatch(text))
    return sorted(fitting, key=lambda key: -sum(len(literal) for literal, *_ in fields(key)))
