"""Groups of modules: by class first, then by whole words of names, never by substrings.

The rules, in order:

1. user patterns;
2. the model's output embedding is ``lm_head``; a class called ``…Embedding`` is ``embedding``;
3. a class called ``…Norm`` is ``norm``, ``…Router`` or ``…MoEGate`` is ``router``, and so are
   modules inside a router and the gate of a mixture of experts;
4. the nearest class, its own or an enclosing one, that says attention, MLP, experts, Mamba
   mixer or patch embedding;
5. whole words of the dotted name;
6. a matrix no rule knows is ``other_linear``; anything else is ``other``, listed as unclassified.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from sparsity_report.errors import SparsityReportError

GROUPS = (
    "embedding", "attention_linear", "mlp_linear", "lm_head", "norm", "router", "ssm",
    "other_linear", "other",
)  # fmt: skip
LINEAR_GROUPS = frozenset({"attention_linear", "mlp_linear", "ssm", "other_linear"})
#: Names of the output projection of attention, whose heads are ranges of inputs.
OUTPUT_WORDS = ("o_proj", "out_proj", "dense", "c_proj", "o", "wo", "out_lin", "Wo", "output")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LINEAR_CLASS = re.compile(r"Linear|Conv1D$|^LinearCSR$|Experts$")
_MLP_CLASS = re.compile(
    r"MLP|Mlp|FeedForward|FFN|ActDense|Intermediate$|Experts?$|SparseMoe|Mo[eE](Block)?$"
)
_OWN_CLASS_RULES = (
    (re.compile(r"Embeddings?$"), "embedding"),
    (re.compile(r"LM(Prediction)?Head$"), "lm_head"),
    (re.compile(r"Norm(2d|1d|3d|Gated)?$"), "norm"),
    (re.compile(r"Router|Mo[eE]\w*Gate$"), "router"),
)
_CLASS_RULES = (
    (re.compile(r"Attention|Attn"), "attention_linear"),
    (re.compile(r"(Mamba|SSM).*Mixer$|^Mamba\d?$"), "ssm"),
    (_MLP_CLASS, "mlp_linear"),
    (re.compile(r"PatchEmbeddings?$"), "embedding"),
)
_ATTENTION_WORDS = _words(
    "selfattention crossattention encdecattention mha attn_q attn_k attn_v attn_output attn_qkv "
    "attn_q_a attn_q_b attn_kv_a_mqa attn_kv_b attn_k_b attn_v_b attn_sinks q_proj k_proj v_proj "
    "o_proj out_proj qkv_proj query_key_value c_attn wqkv in_proj_weight"
)
_MLP_WORDS = _words(
    "mlp ff ffn feed_forward feedforward fc1 fc2 c_fc experts expert shared_expert shared_experts "
    "densereludense intermediate block_sparse_moe moe gate_proj up_proj down_proj gate_up_proj "
    "dense_h_to_4h dense_4h_to_h wi wi_0 wi_1 w1 w2 w3 lin1 lin2 ffn_output ffn_gate ffn_up "
    "ffn_down ffn_gate_exps ffn_up_exps ffn_down_exps ffn_gate_shexp ffn_up_shexp ffn_down_shexp"
)
_SSM_WORDS = _words("mamba ssm ssm_in ssm_out ssm_x ssm_dt ssm_a ssm_d ssm_conv1d")
_EMBEDDING_WORDS = _words(
    "embed_tokens embed_positions embed_in embeddings embedding wte wpe word_embeddings "
    "position_embeddings token_type_embeddings token_embd position_embd "
    "relative_attention_bias embed tok_embeddings shared"
)
_HEAD_WORDS = _words("lm_head embed_out output_embedding")
_ROUTER_WORDS = _words("router shared_expert_gate ffn_gate_inp ffn_gate_inp_shexp")
_OTHER_LINEAR = re.compile(r"Conv(Transpose)?[123]d$|^(LSTM|GRU|RNN)(Cell)?$")
# Names of attention end in these words: self_attn, linear_attn, cross_attention.
_ATTENTION_WORD = re.compile(r"(^|_)(attn|attention)$")
# Lookup tables that are multiplied by the input, such as segment embeddings.
_TABLE_WORD = re.compile(r"(^|_)(embed|embeds|embedding|embeddings|embd)$")
_NORM_WORD = re.compile(
    r"(^|_)(layer|rms|group|batch)?_?norm(_?\d+|_[a-z]+)?$|^ln(_|\d|$)|(^|_)ln$"
)


def head_axis(name: str) -> int:
    """Return the axis of a matrix along which attention heads lie: 1 for output projections."""
    return int(name.rpartition(".")[2] in OUTPUT_WORDS)


def is_linear(class_name: str) -> bool:
    """Return whether a class of this name multiplies tokens by a matrix.

    Examples
    --------
    >>> [is_linear(c) for c in ("Linear", "Conv1D", "MixtralExperts", "Conv1d", "LayerNorm")]
    [True, True, True, False, False]
    """
    return bool(_LINEAR_CLASS.search(class_name))


def is_other_linear(class_name: str) -> bool:
    """Return whether a class of this name is a convolution or a recurrence.

    Examples
    --------
    >>> [is_other_linear(c) for c in ("Conv1d", "ConvTranspose2d", "LSTM", "Conv1D")]
    [True, True, True, False]
    """
    return bool(_OTHER_LINEAR.search(class_name))


def is_table(name: str) -> bool:
    """Return whether a parameter of this name is a table of vectors.

    Examples
    --------
    >>> [is_table(n) for n in ("seg_embed", "pos_embedding", "embedded", "weight")]
    [True, True, False, False]
    """
    return bool(_TABLE_WORD.search(name))


def classify(
    name: str,
    class_name: str = "",
    *,
    enclosing: Sequence[str] = (),
    linear: bool | None = None,
    rules: Mapping[str, str] | None = None,
) -> str:
    """Return the group of a module.

    Parameters
    ----------
    name : str
        Dotted module name.
    class_name : str
        Name of its class; empty where only tensor names are known.
    enclosing : sequence of str
        Class names of the modules around it, nearest first.
    linear : bool, optional
        Whether its weight is a matrix tokens are multiplied by; taken from the class if not given.
    rules : mapping of pattern to group, optional
        Shell-style patterns on the dotted name (``"*.adapter.*"``); the first match wins.

    Examples
    --------
    >>> classify("model.decoder.layers.0.fc1", "Linear")
    'mlp_linear'
    >>> classify("encoder.buffer.offset", "Linear")
    'other_linear'
    """
    if group := ruled(name, rules):
        return group
    words = tuple(word.lower() for word in name.split(".") if not word.isdigit())
    return _classify(words, class_name, tuple(enclosing), linear)


@lru_cache(maxsize=4096)
def _classify(
    words: tuple[str, ...], class_name: str, enclosing: tuple[str, ...], linear: bool | None
) -> str:
    """Apply the rules; cached, since blocks differ in their numbers only."""
    linear = is_linear(class_name) if linear is None else linear
    return (
        _by_class((class_name,), _OWN_CLASS_RULES)
        or _router(words, enclosing)
        or _by_class((class_name, *enclosing), _CLASS_RULES)
        or _by_words(words, class_name, linear)
        or ("other_linear" if linear else "other")
    )


def ruled(name: str, rules: Mapping[str, str] | None) -> str | None:
    """Return the group that user patterns assign to a module."""
    matches = (group for pattern, group in (rules or {}).items() if fnmatchcase(name, pattern))
    return next(matches, None)


def check_rules(rules: Mapping[str, str] | None) -> None:
    """Refuse rules that name an unknown group."""
    for pattern, group in (rules or {}).items():
        if group not in GROUPS:
            raise SparsityReportError(
                f"groups={{{pattern!r}: {group!r}}}: no such group; use one of {', '.join(GROUPS)}"
            )


def _router(words: Sequence[str], enclosing: Sequence[str]) -> str | None:
    """Return whether a linear layer is the gate of a mixture of experts."""
    if any("Router" in name for name in enclosing):
        return "router"
    leaf = words[-1] if words else ""
    in_mixture = bool(enclosing) and re.search(r"Mo[eE]", enclosing[0])
    return "router" if leaf in _ROUTER_WORDS or (leaf == "gate" and in_mixture) else None


def _by_class(classes: Sequence[str], rules: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
    """Return the group of the first class that a rule knows."""
    matches = (group for name in classes for pattern, group in rules if pattern.search(name))
    return next(matches, None)


def _by_words(words: tuple[str, ...], class_name: str, linear: bool) -> str | None:
    leaf = words[-1] if words else ""
    if leaf in _HEAD_WORDS or (not class_name and words == ("output",)):
        return "lm_head"
    if linear and leaf == "gate" and _MLP_WORDS.intersection(words):
        return "router"
    if _NORM_WORD.search(leaf) and not linear:
        return "norm"
    if not class_name and (_EMBEDDING_WORDS.intersection(words) or any(map(is_table, words))):
        return "embedding"
    if _SSM_WORDS.intersection(words):
        return "ssm"
    if any(map(_ATTENTION_WORD.search, words)):
        return "attention_linear"
    if linear or not class_name:
        if _ATTENTION_WORDS.intersection(words):
            return "attention_linear"
        # BERT's feed-forward output is `layer.N.output.dense`; attention's was caught above.
        if _MLP_WORDS.intersection(words) or words[-3:] == ("layer", "output", "dense"):
            return "mlp_linear"
    return None


def classify_module(name: str, module: object) -> str:
    """Return the group of a module from its dotted name and its class.

    Unlike a search for substrings it does not take ``buffer`` for a feed-forward layer.

    Parameters
    ----------
    name : str
        Dotted name of the module.
    module : nn.Module
        The module.

    Returns
    -------
    str
        One of the groups, such as ``"attention_linear"``.

    Examples
    --------
    >>> from torch import nn
    >>> classify_module("model.layers.0.self_attn.q_proj", nn.Linear(2, 2))
    'attention_linear'
    >>> classify_module("model.norm", nn.LayerNorm(2))
    'norm'
    """
    return classify(name, type(module).__name__)
