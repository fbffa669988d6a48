"""Names and texts that try to be more than text, and where in a study they can come to stand."""

import json
import re
import struct
import unicodedata

import measurements
import numpy as np

import sparsity_report as sr

# By what they try. What a browser runs sets `hacked`, what leaves goes to a host that is none.
TEXTS = {
    "script": "</script><script>hacked=1</script>",
    "comment": "--><!--<script>",
    "image": "<img src=x onerror=hacked=1>",
    "svg": '"/></text></svg><svg onload=hacked=1>',
    "attribute": "x' onmouseover='hacked=1\" onfocus=\"hacked=1",
    "style": "</style></title></textarea><style>@import 'http://gone.invalid'",
    "entity": "&lt;b&gt; &#60;i&#62; &amp;",
    "jinja": "{{7*7}}{% raw %}{# no #}",
    "script template": "${7*7}`${hacked=1}`",
    "format": "{variant}{0.__class__}%s%n",
    "vega datum": "datum['x'] || datum.constructor",
    "vega signal": "{\"signal\": \"alert(1)\"}",
    "vega path": "a.b[0]['c']\\.d",
    "link": "https://gone.invalid/?q=1",
    "javascript": "javascript:hacked=1",
    "data": "data:text/html,<script>hacked=1</script>",
    "typst eval": "#eval(\"7 * 7\")",
    "typst read": '#read("/etc/passwd")',
    "typst string": '"); panic("x',
    "typst include": ']\n#include "/etc/passwd"',
    "typst import": "#import \"@preview/x:0.1.0\"",
    "typst marks": "*b* _i_ `r` @ref <label> $ 7 * 7 $ = h",
    "latex input": "\\input{/etc/passwd}",
    "latex carets": "^^M^^5cinput{/etc/passwd}",
    "latex write": "\\immediate\\write18{touch hacked}",
    "latex catcode": "\\catcode`\\@=13 \\def\\x{}\\end{document}",
    "latex signs": "a%b&c#d_e^f~g$h$",
    "latex braces": "}}}{{{",
    "bibtex": "}}@preamble(\"\\input{/etc/passwd}\")",
    "latex template": "<<7*7>><% raw %>",
    "ligatures": "`--``,,<<>>?`'---",
    "formula": "=cmd|'/c calc'!A1",
    "formula plus": "+1+1",
    "formula minus": "-1+1",
    "formula at": "@SUM(A1)",
    "formula tab": "\t=1+1",
    "formula return": "\r=1+1",
    "formula semicolon": "a;=1+1;\"=1+1;",
    "formula quoted": "\"=1+1",
    "formula wide": "＝1＋1",
    "cells": "a,b\"c\nd",
    "terminal clear": "\x1b[2J\x1b[31mred",
    "terminal link": "\x1b]8;;http://gone.invalid\x07x\x1b]8;;\x07",
    "terminal clipboard": "\x1b]52;c;aGFja2Vk\x07",
    "terminal c1": "\x9b2J\x9d0;title\x9c\x85",
    "overwritten": "good\b\b\b\bbad\rworse",
    "null": "line\u2028break\u2029and\x00null\x0b\x0c\x1c",
    "override": "\u202egnirts\u202c",
    "isolates": "\u2066a\u2067b\u2068c\u2069\u200e\u200f\u061c",
    "no width": "a\u200bb\u200cc\u200dd\u2060e\ufefff\u00ad",
    "no glyph": "a\u034fb\u3164c\u115fd\ufe0fe\u2800f\U000e0101g\U000e0041",
    "private": "\ue000\ufdd0\ufffe\uffff\U0010ffff",
    "pile": "z" + "\u0300\u0323\u0489" * 40,
    "mark first": "\u0301a",
    "hebrew": "שלום 30 שכבה",
    "arabic": "نموذج_٣",
    "persian": "می\u200cخواهم",
    "hindi": "क्\u200dष मॉडल",
    "chinese": "模型·注意力",
    "emoji": "👩\u200d🔬❤\ufe0f🦙",
    "composed": unicodedata.normalize("NFC", "café"),
    "decomposed": unicodedata.normalize("NFD", "café"),
    "upper": "CAFE",
    "lower": "cafe",
    "proto": "__proto__",
    "constructor": "constructor",
    "to string": "toString",
    "device": "CON",
    "device file": "aux.csv",
    "up": "../../x",
    "absolute": "/abs/x",
    "windows path": "C:\\new\\x",
    "dots": "x...",
    "spaces": "   ",
    "markdown link": "[x](javascript:hacked=1) ![](http://gone.invalid/x.png)",
    "markdown html": "# <b onclick=hacked=1>\n***\n| a | b |",
    "math": "$\\href{javascript:hacked=1}{x}$ \\(y\\)",
    "python": "\"); import os; os.system('touch hacked')#",
    "python triple": "'''\"\"\"\\\n\\N{DASH}\\u0041",
    "number": "1e999",
    "boolean": "null",
    "date": "2026-01-01",
    "long": "long name " * 500,
    "longest": "x" * 100_000,
}  # fmt: skip

# Half a character: no file can hold it, so it is refused, or spelled out in the name of a file.
HALF = "half\ud800"
# What no line for people may hold.
UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufdd0-\ufdef\ufeff\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\ue000-\uf8ff"
    "\U000e0000-\U0010ffff]"
)


def write_safetensors(path, names, rows=4, columns=6):
    """A file by hand, as whoever means harm would write it: matrices of small whole numbers."""
    size, header = 4 * rows * columns, {}
    for place, name in enumerate(names):
        told = {"dtype": "F32", "shape": [rows, columns]}
        header[name] = {**told, "data_offsets": [place * size, (place + 1) * size]}
    text = json.dumps(header).encode()
    values = (float((37 * k) % 101 - 50) for k in range(len(names) * rows * columns))
    path.write_bytes(
        struct.pack("<Q", len(text)) + text + b"".join(struct.pack("<f", v) for v in values)
    )
    return path


def module_names():
    """All texts as names of modules: some in two blocks, as many as a map names, others outside."""
    texts = list(TEXTS.values())[:-2]
    inside, outside = texts[:38], texts[38:]
    return [f"layers.{b}.{t}" for b in range(2) for t in inside] + outside


NAMES = tuple(TEXTS[key] for key in ("script", "latex input", "terminal clear"))


def study(folder):
    """A study in which every text is a module and a part, and some are whatever else has a name."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = [f"{name}.weight" for name in module_names()]
    weights = sr.load(
        write_safetensors(folder / "model.safetensors", keys),
        name="".join(TEXTS[key] for key in ("image", "override", "hebrew", "math")),
    )
    pruning = sr.global_magnitude(weights, 0.3)
    dense, masked, csr = NAMES
    compared = sr.compare(
        sr.dense(weights, name=dense), sr.masked(pruning, name=masked), sr.csr(pruning, name=csr),
        patterns=True,
    )  # fmt: skip
    totals = compared.totals.set_index("variant")
    latency = measurements.latency(NAMES)
    promised = totals["flops_per_token"][dense] / latency["variant"].map(totals["flops_per_token"])
    whole = latency["scope"] == "model"
    names = compared.layers.loc[compared.layers["variant"] == dense, "module_name"].tolist()
    parts = measurements.sensitivity(len(names))
    scores = measurements.tasks(NAMES)
    texts = [text for text in TEXTS.values() if text][: len(scores)]
    return measurements.put_in(compared, latency=latency.assign(
            machine=TEXTS["terminal link"], kernel=TEXTS["latex braces"], dtype=TEXTS["svg"],
            promised_speedup=promised.where(whole, latency["promised_speedup"]),
            sparsity=latency["variant"].map(totals["sparsity_prunable"]).where(whole),
        ),
        quality=measurements.quality(names=NAMES).assign(
            text=TEXTS["typst include"], dtype=TEXTS["typst marks"],
            text_fingerprint=TEXTS["bibtex"], layout=compared.variants["layout"].tolist(),
            sparsity=totals.loc[[*NAMES], "sparsity_prunable"].tolist(), top1=33 / 99,
        ),
        continuations=measurements.continuations(NAMES).assign(
            prompt=TEXTS["latex braces"],
            continuation=[TEXTS[key] for key in ("typst include", "svg", "formula")],
        ),
        sensitivity=parts.assign(
            by="layer", part=names, modules=1, weight_total=24, pruned=12,
            perplexity=parts["dense_perplexity"] * np.exp(parts["nll_increase"]),
            dtype=TEXTS["override"], text=TEXTS["latex carets"],
        ),
        tasks=scores.assign(
            task=texts, metric=TEXTS["svg"], filter=TEXTS["latex braces"],
            evaluated_model=TEXTS["typst marks"], harness=TEXTS["bibtex"],
            harness_version=TEXTS["script"], task_version=TEXTS["override"],
            results_file=TEXTS["terminal link"], results_fingerprint=TEXTS["latex input"],
        ),
    )  # fmt: skip


def edited(study, path):
    """The study as a file in which all texts that nothing counts with are replaced, too."""
    study.save(path)
    told = json.loads(path.read_text(encoding="utf-8"))
    texts = list(TEXTS.values())
    for table, columns in (
        ("variants", {"model": "math", "architecture": "emoji", "source": "svg"}),
        ("variants", {"fingerprint": "bibtex", "method": "jinja"}),
        ("layers", {"packing": "", "tied_to": ""}),
        ("patterns", {"parameter": "", "n_m": "formula"}),
    ):
        for column, key in columns.items():
            place = told[table]["columns"].index(column)
            for number, row in enumerate(told[table]["rows"]):
                if row[place] is not None:
                    row[place] = TEXTS[key] if key else texts[number % len(texts)]
    told["provenance"] |= {"command": TEXTS["script"], "platform": TEXTS["latex braces"]}
    told["provenance"]["versions"]["torch"] = TEXTS["terminal link"]
    told["notes"] += [f"of {text}" for text in texts]
    path.write_text(json.dumps(told), encoding="utf-8")
    return path
