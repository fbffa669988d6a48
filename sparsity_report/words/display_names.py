"""Names as people read them: groups, policies, layouts, and names of any length shortened."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from sparsity_report.errors import printable
from sparsity_report.words.sentences import message, say

GROUP_NAMES = {
    "embedding": message("embedding"),
    "attention_linear": message("attention"),
    "mlp_linear": message("MLP"),
    "lm_head": message("output head"),
    "norm": message("norm"),
    "router": message("router"),
    "ssm": message("state space"),
    "other_linear": message("other linear"),
    "other": message("other"),
}
_METHODS = {
    "global_magnitude": message("global magnitude"),
    "layerwise_magnitude": message("layerwise magnitude"),
    "random": message("random"),
    "wanda_one_pass": message("Wanda in one pass"),
    "imported_masks": message("imported masks"),
    "given": message("given shares"),
    "bounded": message("with bounds"),
    "owl": message("OWL shares"),
}
_LAYOUTS = {
    "dense": message("dense"),
    "masked": message("masked"),
    "csr": message("CSR"),
    "csr_int16": message("CSR with int16 columns"),
    "csr_int32": message("CSR with int32 indices"),
    "csr_int64": message("CSR with int64 indices"),
    "coo_int32": message("COO with int32 indices"),
    "coo_int64": message("COO with int64 indices"),
    "bitmask": message("bitmask"),
    "tca_bme": message("SpInfer bitmap"),
    "macko": message("MACKO"),
    "marlin_2:4": message("4-bit 2:4 (Marlin)"),
    "zstd": message("compressed file (zstd)"),
}

_KINDS = {
    "block": message("block"),
    "attention": message("attention"),
    "mlp": message("MLP"),
    "layer": message("layer"),
    "expert": message("expert"),
    "head": message("head"),
    "kv_head": message("key-value head"),
    "channel": message("channel"),
    "vocabulary": message("token of the vocabulary"),
    "width": message("channel of the width"),
}
_ALIGNMENTS = {
    "name": message("its name"),
    "renamed": message("its name, renamed"),
    "turned": message("its values, turned"),
    "fused": message("its name, fused or split"),
    "rotated": message("its name, its values rotated"),
    "content": message("its values"),
    "reordered": message("its values, in another order"),
    "added": message("nothing, it is new"),
    "removed": message("nothing, it is gone"),
}

_STRUCTURES = {
    "position": message("the position in the model"),
    "weight_total": message("the number of weights"),
    "threshold": message("the magnitude of what is pruned"),
    "std": message("the spread of the weights"),
    "global_sparsity": message("what global pruning would take"),
}
#: Where a long word may break; it has no width.
BREAK = "\u200b"
_LONG_WORD = re.compile(r"\S{24,}")
_PART = re.compile(r"[^._/]{0,23}[._/]|.{24}")


_CACHES = {"in cache": message("in cache"), "out of cache": message("from memory")}


_OUTSIDE = message("outside blocks")


def group_name(group: str) -> str:
    """Return a group's name for people.

    Examples
    --------
    >>> group_name("attention_linear"), group_name("my rule")
    ('attention', 'my rule')
    """
    return say(GROUP_NAMES[group]) if group in GROUP_NAMES else group


def part_name(by: str, part: str) -> str:
    """Return for people the name of a part that was pruned alone: a group, a block or a layer.

    Examples
    --------
    >>> part_name("group", "mlp_linear"), part_name("layer", "mlp_linear")
    ('MLP', 'mlp_linear')
    """
    if by == "block":
        number = part.removeprefix("block ")
        return say("block {block}", block=number) if number.isdigit() else say(_OUTSIDE)
    return group_name(part) if by == "group" else part


def kind_name(kind: str) -> str:
    """Return for people what is gone of a model.

    Examples
    --------
    >>> kind_name("kv_head"), kind_name("expert")
    ('key-value head', 'expert')
    """
    return say(_KINDS[kind])


def alignment_name(alignment: str) -> str:
    """Return for people by what a module was recognised in another checkpoint.

    Examples
    --------
    >>> alignment_name("name"), alignment_name("content")
    ('its name', 'its values')
    """
    return say(_ALIGNMENTS[alignment]) if alignment in _ALIGNMENTS else alignment


def method_name(method: str) -> str:
    """Return the name of a way to prune for people.

    Examples
    --------
    >>> method_name("global_magnitude"), method_name("2:4"), method_name("random, seed 3")
    ('global magnitude', '2:4', 'random, seed 3')
    """
    parts = method.split(", ")
    return ", ".join(say(_METHODS[p]) if p in _METHODS else p.replace("_", " ") for p in parts)


def policy_name(policy: str) -> str:
    """Return how weights are chosen, for people; without a word it is their magnitude.

    Examples
    --------
    >>> policy_name("layerwise_magnitude"), policy_name("")
    ('layerwise magnitude', 'magnitude')
    """
    return method_name(policy) if policy else say("magnitude")


def layout_name(layout: str) -> str:
    """Return the name of a storage layout for people.

    Examples
    --------
    >>> layout_name("csr_int32"), layout_name("bsr_16")
    ('CSR with int32 indices', 'BSR 16 × 16')
    """
    if layout.startswith("bsr_"):
        side = layout.removeprefix("bsr_")
        return f"BSR {side} × {side}"
    return say(_LAYOUTS[layout]) if layout in _LAYOUTS else layout


def cache_name(cache: str) -> str:
    """Return for people where the weights of a layer come from.

    Examples
    --------
    >>> cache_name("in cache"), cache_name("out of cache")
    ('in cache', 'from memory')
    """
    return say(_CACHES[cache]) if cache in _CACHES else cache


def unpacked_name(name: str, dtypes: Sequence[str]) -> str:
    """Return the name of weights that are counted unpacked to some types, if they were packed.

    Examples
    --------
    >>> unpacked_name("Dense", ["float32"]), unpacked_name("Dense", [])
    ('Dense unpacked to float32', 'Dense')
    """
    return say("{name} unpacked to {dtypes:names}", name=name, dtypes=dtypes) if dtypes else name


def dtype_names(dtypes: Sequence[str], unpacked: Sequence[str]) -> list[str]:
    """Return types for people, those that packed weights are counted in told apart.

    Examples
    --------
    >>> dtype_names(["float32", "bfloat16"], ["float32"])
    ['unpacked float32', 'bfloat16']
    """
    return [say("unpacked {dtype}", dtype=d) if d in unpacked else d for d in dtypes]


def structure_name(column: str) -> str:
    """Return the name of what the sensitivity of parts may go with, for people."""
    return say(_STRUCTURES[column])


def tokens_name(tokens: int) -> str:
    r"""Write a number of tokens.

    Examples
    --------
    >>> tokens_name(1), tokens_name(1024).replace("\u202f", " ")
    ('1 token', '1 024 tokens')
    """
    return say("{tokens:plural token|tokens}", tokens=tokens)


def clip(text: object, limit: int = 60) -> str:
    """Shorten any text for one line of people's reading; what would not be seen is spelled out."""
    return printable(str(text), limit)


def short_name(name: object) -> str:
    """Shorten what a variant is called, where a table or a line has room for one.

    Examples
    --------
    >>> short_name("Masked30"), len(short_name("M" * 41))
    ('Masked30', 40)
    """
    return clip(name, 40)


def distinct_names(names: Sequence[str], limit: int = 40) -> list[str]:
    """Shorten names for people; different ones stay different, those too that look alike.

    Examples
    --------
    >>> distinct_names(["abcdef", "abcdeg", "abcdef"], 4)
    ['abc…', 'abc… (2)', 'abc…']
    """
    short: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        shown, number = clip(name, limit), 2
        # An accent of its own, or one with its letter: no reader tells them apart.
        while (look := unicodedata.normalize("NFC", shown)) in taken:
            shown, number = f"{clip(name, limit)} ({number})", number + 1
        short[name] = shown
        taken.add(look)
    return [short[name] for name in names]


def breakable(text: str) -> str:
    r"""Mark with zero-width spaces where a long word, such as a module's name, may break.

    Examples
    --------
    >>> breakable("of model.layers.0.self_attn.q_proj").split("\u200b")
    ['of model.', 'layers.', '0.', 'self_', 'attn.', 'q_', 'proj']
    """
    return _LONG_WORD.sub(lambda word: _PART.sub(rf"\g<0>{BREAK}", word[0]).rstrip(BREAK), text)


def file_name(name: str) -> str:
    """Turn any name into a plain lower-case part of a file's name.

    Examples
    --------
    >>> file_name("Masked30"), file_name("../my model"), file_name("§")
    ('masked30', 'my-model', 'unnamed')
    """
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:80] or "unnamed"
