"""Atlas of pruned checkpoints: the claims about each checkpoint of a list, beside its counts.

``python docs/atlas/atlas.py docs/atlas/checkpoints.yaml --out atlas --budget 20GB`` writes
``atlas.json``, ``atlas.csv`` and ``atlas.md`` after each checkpoint. Models on the Hub are read
over the network without a local copy. The same command resumes an interrupted run.
"""

import argparse
import hashlib
import html
import json
import re
from functools import partial
from pathlib import Path

import jinja2
import pandas as pd
import yaml
from huggingface_hub import HfApi

import sparsity_report as sr

WAITING, STRUCTURE, COUNTED, REFUSED = "waiting", "structure", "counted", "refused"
EMPTY = {
    "commit": None, "state": WAITING, "reason": None, "is_complete": False, "has_pattern": False,
    "figures": {},
}  # fmt: skip
PLACE, ABOUT = ("model", "revision", "subfolder", "file"), ("source", "read_on")
CLAIMS = ("parameters", "active parameters", "experts", "blocks", "sparsity", "pattern")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
LAYOUTS = {"dense": "dense", "csr_int32": "CSR", "bitmask": "bitmask", "2:4": "2:4"}
SHARES = {
    "sparsity_prunable": "of the prunable weights",
    "sparsity_non_embedding": "of the non-embedding parameters",
    "sparsity_model": "of all parameters",
}
VERDICTS = {
    "sparse": "sparse kernels", "dense": "dense kernels", "some": "some architectures",
    "misread": "random weights", "refused": "refused", "unknown": "unknown",
}  # fmt: skip
PATTERNS = {
    None: "no structure known",
    "n_m": "{pattern} in {matrices} of {among} prunable matrices",
    "heads": "{heads} whole heads",
    "rows": "{rows} whole rows and {columns} whole columns",
    "even": "unstructured, {low:.1%} to {high:.1%} by layer",
    "uneven": "unstructured, {low:.1%} to {high:.1%} by layer",
}
# Columns of the tables of the page.
TABLES = {
    "Claims": ["claimed"],
    "Counts": ["parameters", "active parameters", "blocks", "experts", "stored as"],
    "Zeros": [*(f"zeros {words}" for words in SHARES.values()), "pattern"],
    "Layouts": ["bytes in files", *(f"bytes {name}" for name in LAYOUTS.values())],
    "Runtimes": [*VERDICTS.values()],
}


def read_list(path):
    """Return title, note and entries of a list of checkpoints; all values are text."""
    listed = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    for entry in listed["checkpoints"]:
        claims = entry.setdefault("claims", {})
        unknown = {*entry} - {*PLACE, *ABOUT, "claims"} | {*claims} - {*CLAIMS}
        if unknown or not isinstance(entry["model"], str):
            raise ValueError(f"{entry['model']!r} has an unknown {joined(unknown) or 'name'}")
        for key in {*CLAIMS[:5]} & {*claims}:
            quantity(claims[key], "%" if key == "sparsity" else "")
        if not re.fullmatch(r"\d+:\d+|unstructured", claims.get("pattern", "2:4")):
            raise ValueError(f"pattern {claims['pattern']!r} is neither N:M nor unstructured")
    return listed.get("title", "Atlas"), listed.get("note", ""), listed["checkpoints"]


def quantity(text, sign=""):
    """Return a number such as ``8B``, ``20GB`` or ``50%``, and one unit of its last digit."""
    pattern = rf"(\d+)(?:\.(\d+))?\s*([KMGBT]?)B?\s*{sign}"
    if not (match := re.fullmatch(pattern, text.replace(",", ""))):
        raise ValueError(f"{text!r} is not a number such as {'50%' if sign else '1,234 or 8B'}")
    unit = UNITS[match[3]] / 10 ** len(match[2] or "")
    return round(int(match[1] + (match[2] or "")) * unit, 9), unit


def place_of(entry):
    """Return the key of an entry: model, revision, subfolder and file."""
    return tuple(entry.get(key) for key in PLACE)


def state_of(entry, folder):
    """Return where a model is, and the state of its files: a commit, or a digest of their sizes."""
    name, local = entry["model"], folder / entry["model"]
    if not local.exists():
        revision = entry.get("revision", "main")
        if re.fullmatch(r"[0-9a-f]{40}", revision):
            return name, revision
        return name, HfApi().model_info(name, revision=revision, timeout=30).sha
    files = sorted(local.rglob("*")) if local.is_dir() else [local]
    stats = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return local, f"files {hashlib.sha256(repr(stats).encode()).hexdigest()[:16]}"


def figures_of(weights, study):
    """Return the figures of one checkpoint by column; unknown ones are None or empty."""
    totals, runtimes = study.totals.iloc[0], study.runtimes
    sizes = study.storage[study.storage["scope"] == "model"].set_index("layout")
    # Without patterns, it is unknown if 2:4 holds every weight.
    sizes = sizes["bytes"].where(sizes["lossless"].fillna(False).astype(bool))
    figures = {
        "parameters": totals["total"],
        "non-embedding parameters": totals["non_embedding_total"],
        "active parameters": totals["active_total"],
        "blocks": len({module.block for module in weights.modules} - {None}),
        "experts": joined(sorted({p.experts for p in weights.stored if p.experts > 1})),
        "stored as": joined(sorted({p.packing or p.dtype for p in weights.prunable})),
        "prunable weights": totals["prunable_total"],
        "prunable zeros": totals["prunable_total"] - totals["prunable_nonzero"],
        **{f"zeros {words}": totals[key] for key, words in SHARES.items()},
        "pattern": None,
        "bytes in files": totals["file_bytes"],
        **{f"bytes {name}": sizes.get(key) for key, name in LAYOUTS.items()},
    }
    if study.patterns is not None:
        key, each = study.facts.positions(totals["variant"]) or (None, {})
        figures["pattern"] = PATTERNS[key].format(**each).replace("%", " %")
    for verdict, words in VERDICTS.items():
        figures[words] = joined(runtimes.loc[runtimes["verdict"] == verdict, "runtime"])
    known = {key: None if pd.isna(value) else value for key, value in figures.items()}
    return {k: value.item() if hasattr(value, "item") else value for k, value in known.items()}


class Budget:
    """Bytes that a run may still read."""

    def __init__(self, left):
        self.left = left

    def refusal(self, parameters, action):
        """Return why a pass over parameters does not fit; else spend its bytes, return None."""
        size = sum(p.file_bytes or 0 for p in parameters if p.tied_to is None)
        if size > self.left:
            return f"{action}: would read {scaled(size)}, and {scaled(self.left)} are left"
        self.left -= size
        return None


def count(row, place, budget, cache):
    """Fill in a row from the headers, then count zeros and find their pattern; return a refusal."""
    options = {key: row[key] for key in PLACE[2:] if row.get(key)}
    if place == row["model"]:
        options |= {"revision": row["commit"], "stream": True}
    outline = sr.load(place, values=False, **options)
    row |= {"figures": figures_of(outline, sr.compare(sr.dense(outline))), "state": STRUCTURE}
    if refusal := budget.refusal(outline.parameters, "not counted"):
        return refusal
    weights = sr.load(place, **options)
    sr.existing_zeros(weights, cache=cache)
    dense = sr.dense(weights)
    row |= {"figures": figures_of(weights, sr.compare(dense)), "state": COUNTED}
    if not dense.is_pruned and not asks_pattern(row):
        return None
    if refusal := budget.refusal(weights.prunable, "pattern not read"):
        return refusal
    figures = figures_of(weights, sr.compare(dense, patterns=True))
    row |= {"figures": figures, "has_pattern": True}
    return None


def asks_pattern(row):
    """Return whether the claims are about zeros."""
    return bool({"sparsity", "pattern"} & {*row["claims"]})


def run(rows, folder, budget, cache, save):
    """Count each checkpoint that is new or has changed, and save the table after each."""
    for number, row in enumerate(rows, 1):
        action = "commit unknown"
        try:
            place, commit = state_of(row, folder)
            is_known = row["is_complete"] and (row["has_pattern"] or not asks_pattern(row))
            if not is_known or row["commit"] != commit:
                row |= EMPTY | {"commit": commit}
                action = None
                row["reason"] = count(row, place, budget, cache)
                row["is_complete"] = row["reason"] is None
        except Exception as error:  # one bad checkpoint, or a missing network, ends no run
            row["state"] = row["state"] if row["figures"] else REFUSED
            stopped = {STRUCTURE: "not counted", COUNTED: "pattern not read"}.get(row["state"])
            kind = "" if isinstance(error, sr.SparsityReportError) else type(error).__name__
            text = plain(error).replace(f"{folder}/", "").rstrip(".")
            row["reason"] = ": ".join(filter(None, (action or stopped, kind, text)))[:300]
        save()
        print(plain(f"{number} of {len(rows)}: {row['model']}: {row['reason'] or row['state']}"))


def differences(row):
    """Yield a sentence for each claim that the counts contradict: the count, then the claim."""
    figures, claims = row["figures"], row["claims"]
    for name in [name for name in CLAIMS[:4] if name in claims and figures.get(name) is not None]:
        counted = [figures[name], *[figures["non-embedding parameters"]] * (name == CLAIMS[0])]
        numbers = map(int, re.findall(r"\d+", joined(counted)))
        claimed, unit = quantity(claims[name])
        if all(abs(number - claimed) >= unit for number in numbers):
            yield f"{form(name, figures[name])} {name} counted, {claims[name]} claimed"
    shares = {words: figures.get(f"zeros {words}") for words in SHARES.values()}
    if "sparsity" in claims and None not in shares.values():
        claimed, unit = quantity(claims["sparsity"], "%")
        if all(abs(100 * share - claimed) > unit / 2 for share in shares.values()):
            zeros = joined(f"{form(words, share)} {words}" for words, share in shares.items())
            yield f"{zeros} are zero, {claims['sparsity']} claimed"
    if "pattern" in claims and row["has_pattern"]:
        is_free, structured = claims["pattern"] == "unstructured", r" in (\d+) of \1 prunable.*"
        if not re.match(
            r".*structure" if is_free else claims["pattern"] + structured, figures["pattern"]
        ):
            yield f"{figures['pattern']}, {claims['pattern']} claimed"


def joined(values):
    """Return values separated by commas, each once."""
    return ", ".join(map(str, dict.fromkeys(values)))


def scaled(size):
    """Return bytes with a decimal unit and three digits."""
    units = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B"))
    return next((f"{size / unit:.3g} {name}" for unit, name in units if size >= unit), "0 B")


def plain(text):
    """Return text as one line without control and direction characters."""
    spaced = re.sub(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", " ", str(text))
    return " ".join(spaced.split())


def form(head, value):
    """Return a known figure as text."""
    if isinstance(value, str):
        return value or "no"
    number = scaled(value) if "bytes" in head else f"{value:,}"
    return number if isinstance(value, int) else f"{100 * value:.1f} %"


def cell(text):
    """Return text that Markdown shows as it is; an address as a link."""
    if re.fullmatch(r"https?://[\w./%-]+", str(text)):
        return f"<{text}>"
    return re.sub(r"([\\`*_{}\[\]()#+!|~$@])", r"\\\1", html.escape(plain(text), quote=False))


def page(title, note, rows):
    """Return the Markdown page of all rows; the template escapes every value."""
    for row in rows:
        claimed = joined(f"{key} {text}" for key, text in row["claims"].items())
        cells = {"claimed": claimed, **row["figures"]}
        row["cells"] = {k: form(k, value) for k, value in cells.items() if value not in (None, "")}
    tables = {
        heading: (heads, [row for row in rows if any(head in row["cells"] for head in heads)])
        for heading, heads in TABLES.items()
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), finalize=cell, trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    template = environment.get_template("page.md.j2")
    values = {"title": title, "note": note, "rows": rows, "tables": tables}
    return template.render(values).rstrip() + "\n"


def write(out, title, note, rows):
    """Write the table as JSON and CSV, and the page; each file as a whole."""
    for row in rows:
        row["discrepancies"] = [*differences(row)]
    atlas = {"atlas": 1, "version": sr.__version__, "title": title, "rows": rows}
    files = {
        "atlas.json": json.dumps(atlas, indent=1, ensure_ascii=False) + "\n",
        "atlas.csv": pd.DataFrame([*map(flat, rows)], dtype=object).to_csv(index=False),
        "atlas.md": page(title, note, [{**row} for row in rows]),
    }
    for name, text in files.items():
        (out / f".{name}").write_text(text, encoding="utf-8")
        (out / f".{name}").replace(out / name)


def flat(row):
    """Return a row of the spreadsheet; text that could be a formula gets an apostrophe."""
    values = {key: row.get(key) for key in (*PLACE, "commit", "state", "reason", *ABOUT)}
    values |= {f"claimed {key}": row["claims"].get(key) for key in CLAIMS}
    values |= row["figures"] | {"discrepancies": "; ".join(row["discrepancies"])}
    texts = {key: plain(text) for key, text in values.items() if isinstance(text, str)}
    return values | {key: re.sub(r"^(?=\W*[=+\-@])", "'", text) for key, text in texts.items()}


def earlier(path):
    """Return the rows of an earlier run by their keys; none where there are none or bad ones."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return {place_of(row): {key: row[key] for key in EMPTY} for row in rows}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def main(arguments=None):
    """Read the options, and count within the budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("list", type=Path, help="YAML list of checkpoints and claims")
    parser.add_argument("-o", "--out", type=Path, default=Path("atlas"), help="output folder")
    parser.add_argument("--budget", default="1000T", help="most bytes to read, such as 20GB")
    parser.add_argument("--claims-only", action="store_true", help="read no model")
    options = parser.parse_args(arguments)
    try:
        title, note, entries = read_list(options.list)
        budget = Budget(quantity(options.budget)[0])
        options.out.mkdir(parents=True, exist_ok=True)
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
        parser.exit(2, f"{plain(options.list)}: {plain(error)}; see docs/atlas/index.md\n")
    before = earlier(options.out / "atlas.json")
    rows = [EMPTY | before.get(place_of(entry), {}) | entry for entry in entries]
    save = partial(write, options.out, title, note, rows)
    save()
    try:
        if not options.claims_only:
            run(rows, options.list.parent, budget, options.out / "counts", save)
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; the same command goes on from here\n")


if __name__ == "__main__":
    main()
