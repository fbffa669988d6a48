"""Names of groups, policies, layouts and other kinds as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from sparsity_report.words.sentences import say

GROUP_NAMES = {
    "embedding": "name.embedding",
    "attention_linear": "name.attention",
    "mlp_linear": "name.mlp",
    "lm_head": "name.output_head",
    "norm": "name.norm",
    "router": "name.router",
    "ssm": "name.state_space",
    "other_linear": "name.other_linear",
    "other": "name.other",
}
_METHODS = {
    "global_magnitude": "name.global_magnitude",
    "layerwise_magnitude": "name.layerwise_magnitude",
    "random": "name.random",
    "wanda_one_pass": "name.wanda_one_pass",
    "imported_masks": "name.imported_masks",
    "given": "name.given_sparsities",
    "bounded": "name.with_bounds",
    "owl": "name.owl_sparsities",
}
_LAYOUTS = {
    "dense": "name.layout_dense",
    "masked": "name.masked",
    "csr": "name.csr",
    "csr_int16": "name.csr_int16",
    "csr_int32": "name.csr_int32",
    "csr_int64": "name.csr_int64",
    "coo_int32": "name.coo_int32",
    "coo_int64": "name.coo_int64",
    "bitmask": "name.bitmask",
    "tca_bme": "name.spinfer_bitmap",
    "macko": "name.macko",
    "marlin_2:4": "name.marlin_2_4",
    "zstd": "name.zstd_file",
}

_KINDS = {
    "block": "name.block",
    "attention": "name.attention",
    "mlp": "name.mlp",
    "layer": "name.kind_layer",
    "expert": "name.expert",
    "head": "name.head",
    "kv_head": "name.kv_head",
    "channel": "name.channel",
    "vocabulary": "name.vocabulary_token",
    "width": "name.width_channel",
}
_ALIGNMENTS = {
    "name": "name.match_name",
    "renamed": "name.match_renamed",
    "turned": "name.match_transposed",
    "fused": "name.match_fused",
    "rotated": "name.match_rotated",
    "content": "name.match_values",
    "reordered": "name.match_permuted",
    "added": "name.match_added",
    "removed": "name.match_removed",
}

_STRUCTURES = {
    "position": "name.structure_position",
    "weight_total": "name.structure_weights",
    "threshold": "name.structure_threshold",
    "std": "name.structure_std",
    "global_sparsity": "name.structure_global_sparsity",
}


_CACHES = {"in cache": "name.in_cache", "out of cache": "name.from_memory"}


_OUTSIDE = "name.outside_blocks"


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
        return say("name.numbered_block", block=number) if number.isdigit() else say(_OUTSIDE)
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
    return method_name(policy) if policy else say("name.magnitude")


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
    return say("name.unpacked_to", name=name, dtypes=dtypes) if dtypes else name


def dtype_names(dtypes: Sequence[str], unpacked: Sequence[str]) -> list[str]:
    """Return types for people, those that packed weights are counted in told apart.

    Examples
    --------
    >>> dtype_names(["float32", "bfloat16"], ["float32"])
    ['unpacked float32', 'bfloat16']
    """
    return [say("name.unpacked_dtype", dtype=d) if d in unpacked else d for d in dtypes]


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
    return say("format.token_count", tokens=tokens)
