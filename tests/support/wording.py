"""English texts of the catalogue by key, so that tests do not depend on their wording."""

import re
import string

from sparsity_report.words.languages import spoken


def fields(key):
    """Yield the literal text, name and format of each part of a key's English text."""
    for literal, name, spec, _ in string.Formatter().parse(spoken().template(key)):
        yield literal, name, spec or ""


def reader(key):
    """Return a pattern of the texts of a key; its groups are the placeholders."""
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
    return re.compile(pattern)


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


def of_key(findings, key):
    """Return the findings of a key, those among the statements of others included."""
    statements = [s for f in findings for s in (f, *f.values.get("statements", ()))]
    return [finding for finding in statements if finding.key == key]
