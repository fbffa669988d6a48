"""Files that names, shapes and ``config.json`` decide, for which no class is asked.

A file is decided if each tensor has a known place and each setting that matters is there. Names
and shapes then describe the model in memory as its class does: names and order of modules, groups,
ties, uses and widths of attention. A tensor that no pattern explains, such as a buffer, an adapter
or a further block, leaves it undecided. The class of transformers is then asked.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from itertools import product
from typing import Any

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.anatomy import groups
from sparsity_report.weights.anatomy.config_sizes import has_usual_sizes
from sparsity_report.weights.anatomy.names_only import (
    EXPERTS_PER_TOKEN,
    HEADED,
    Description,
    ReaderOptions,
    describe_names,
    expert_stacks,
    experts_per_token,
    first_count,
    is_of_tokens,
    is_padding,
    named_parts,
    shape_of,
    tied_names,
)
from sparsity_report.weights.matrix_direction import Shape
from sparsity_report.weights.module_order import is_ordered
from sparsity_report.weights.packed.quantization_config import SETTINGS_KEYS
from sparsity_report.weights.tensor_slices import Entry
from sparsity_report.weights.weights import NEVER, Module, Parameter
from sparsity_report.words.sentences import say

# Ends of names of classes with another head.
_SCORED = (
    "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering",
    "ForImageClassification",
)  # fmt: skip
# Classes whose scores are those of a whole input.
_AT_ONCE = ("ForSequenceClassification", "ForImageClassification")
_DTYPES = (None, "float32", "float16", "bfloat16")
_CLASS = re.compile(r"[A-Za-z]\w{0,99}", re.ASCII)
# Groups of modules that need no further explanation.
_KNOWN = {"embedding", "attention_linear", "mlp_linear", "norm", "lm_head", "router"}
# Modules before an output head, and the heads of other classes.
_TRANSFORM = re.compile(r"cls\.predictions\.transform\.dense|lm_head\.dense|vocab_transform")
_SCORES = re.compile(r"classifier(\.dense|\.out_proj)?|pre_classifier|score|qa_outputs")
_POOLER = re.compile(r"(.+\.)?pooler\.dense")
# Names of the same numbers in the configurations of different models.
_BLOCKS = ("encoder_layers", "num_hidden_layers", "n_layer", "num_layers", "n_layers")
_DECODER_BLOCKS = ("decoder_layers", "num_decoder_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim", "n_embed")
_INNER = (
    "intermediate_size", "ffn_dim", "n_inner", "d_ff", "hidden_dim", "encoder_ffn_dim",
    "decoder_ffn_dim", "moe_intermediate_size", "shared_expert_intermediate_size",
)  # fmt: skip
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads")
_HEAD_DIM = ("head_dim", "d_kv")
#: Names of the number of experts in configurations.
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
# Blocks of one tower: the text before their number, the number, and the rest.
_BLOCK = re.compile(
    r"(?P<tower>(?:[A-Za-z_]+\.)*(?:h|layers?|blocks?))\.(?P<number>\d{1,9})\.(?P<rest>.+)"
)
# Names of the matrices of attention, each with those of its class.
_ATTENTION = (
    {"q_proj", "k_proj", "v_proj", "o_proj"}, {"q_proj", "k_proj", "v_proj", "out_proj"},
    {"q_proj", "k_proj", "v_proj", "dense"},
    {"query", "key", "value", "dense"}, {"q", "k", "v", "o"}, {"qkv_proj", "o_proj"},
    {"q_lin", "k_lin", "v_lin", "out_lin"}, {"c_attn", "c_proj"}, {"query_key_value", "dense"},
)  # fmt: skip
# Position tables in the first block.
_POSITIONS = re.compile(r"\.relative_attention_bias\.weight$")
# Convolutions before the blocks of speech and image models, and tables of the latter.
_SPEECH = re.compile(r"(model\.)?encoder\.conv[12]\.(weight|bias)")
_IMAGE = re.compile(
    r"(\w+\.)?embeddings\.(patch_embeddings\.projection\.(weight|bias)|cls_token|"
    r"position_embeddings)"
)
# Modules of speech models that read each position of a sound, whose number is fixed.
_OF_SOUND = re.compile(r"(^|\.)encoder\.layers\.|\.encoder_attn\.[kv]_proj\.")
# Settings of attention that its names do not show.
_OTHER_ATTENTION = re.compile("approx|hash|prior|chunk|random_blocks")
# Words on disk that transformers changes in memory, by a part of the name of some tensor.
_RENAMED = {
    "embed_out.": (("embed_out.", "lm_head."),),
    ".experts.0.w1.": ((".block_sparse_moe.", ".mlp."),),
    ".attention.attention.": (
        (".attention.query.", ".q_proj."), (".attention.key.", ".k_proj."),
        (".attention.value.", ".v_proj."), (".attention.output.dense.", ".attention.o_proj."),
        (".intermediate.dense.", ".mlp.fc1."), (".output.dense.", ".mlp.fc2."),
        ("encoder.layer.", "layers."),
    ),
}  # fmt: skip
# Experts on disk, which are stacked in memory, and those of their projections that are joined.
_EXPERT = re.compile(r"(.+\.experts)\.(\d{1,6})\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.weight")
_JOINED = {"gate_proj": 0, "w1": 0, "up_proj": 1, "w3": 1}


def decide(
    entries: Mapping[str, Entry], options: ReaderOptions, config: Mapping[str, Any]
) -> tuple[dict[str, list[Entry]], Description] | None:
    """Return the tensors of each parameter and the modules in memory; None for an undecided file.

    Parameters
    ----------
    entries : mapping of str to Entry
        Tensors on disk, each packed weight as one.
    options : ReaderOptions
    config : mapping
        Content of ``config.json``.
    """
    file = _read_file(entries, options, config)
    return (file.parts, file.description()) if file and all(file.requirements()) else None


def check_sizes(
    entries: Mapping[str, Entry], options: ReaderOptions, config: Mapping[str, Any]
) -> None:
    """Refuse sizes in ``config.json`` if names decide the file with those of its tensors."""
    file = _read_file(entries, options, config)
    if file and (other := file.other_sizes()) and decide(entries, options, {**config, **other}):
        key, size = next(iter(other.items()))
        raise SparsityReportError(
            f"{options.name}: {key} is {config[key]} in config.json but {size} in the tensors; "
            "download the whole checkpoint, or give the config.json of these weights"
        )


def _read_file(
    entries: Mapping[str, Entry], options: ReaderOptions, config: Mapping[str, Any]
) -> _File | None:
    """Return a file that names may describe."""
    match config.get("architectures"):
        case [str(class_name)] if _CLASS.fullmatch(class_name):
            pass
        case _:
            return None
    if any(is_padding(key, entries) for key in entries):
        return None
    if (parts := _in_memory(named_parts(entries))) is None:
        return None
    ties = tied_names(parts, config)
    described = describe_names(parts, options, experts_per_token(config), ties)
    return None if described.unsettled else _File(class_name, config, parts, ties, described)


def _in_memory(parts: Mapping[str, list[Entry]]) -> dict[str, list[Entry]] | None:
    """Return the tensors of each parameter under the names in memory, experts stacked.

    None if a stack is not complete.
    """
    names = " ".join(parts)
    if ".block_sparse_moe." in names and ".bias" in names:  # their routers have other names too
        return None
    words = [pair for sign, pairs in _RENAMED.items() if sign in names for pair in pairs]
    renamed: dict[str, list[Entry]] = {}
    stacks: dict[str, dict[tuple[int, int], Entry]] = defaultdict(dict)
    for key, tensors in parts.items():
        name = reduce(lambda name, pair: name.replace(*pair), words, key)
        if match := _EXPERT.fullmatch(name):
            joined = "gate_up_proj" if match[3] in _JOINED else "down_proj"
            stacks[f"{match[1]}.{joined}"][int(match[2]), _JOINED.get(match[3], 0)] = tensors[0]
        else:
            renamed[name] = tensors
    for name, stack in stacks.items():
        step = 2 if name.endswith("gate_up_proj") else 1
        complete = {*product(range(len(stack) // step), range(step))}
        if stack.keys() != complete or len({entry.shape for entry in stack.values()}) > 1:
            return None
        renamed[name] = [stack[key] for key in sorted(stack)]
    is_whole = sum(map(len, renamed.values())) == len(parts)  # no two of one name
    return renamed if is_whole else None


class _File:
    """A file that names may describe."""

    def __init__(
        self,
        class_name: str,
        config: Mapping[str, Any],
        parts: dict[str, list[Entry]],
        ties: Mapping[str, str],
        described: Description,
    ) -> None:
        self.class_name, self.config, self.parts, self.ties = class_name, config, parts, ties
        self.described = described
        self.shapes = {name: shape_of(name, tensors) for name, tensors in parts.items()}
        self.kinds = {p.name: m.group for m in described.modules for p in m.parameters}
        self.named = [(m.name, p) for m in described.modules for p in m.parameters]
        self.untied = {p.name for _, p in self.named if p.tied_to is None}
        self.width, self.heads, self.vocabulary = (
            first_count(config, *names) or 0 for names in (_WIDTH, _HEADS, ("vocab_size",))
        )
        self.is_headed = class_name.endswith(HEADED)
        self.is_image = any(".patch_embeddings." in name for name in parts)
        self.is_speech = not self.is_image and any(map(_SPEECH.fullmatch, parts))
        pattern = _IMAGE if self.is_image else _SPEECH
        self.rows, self.image = 0, (1, 0, 0, 0)  # positions of an image and its shape
        self.stem = {name for name in parts if pattern.fullmatch(name)}

    def requirements(self) -> Iterator[bool]:
        """Yield whether each requirement on the file is met; cheap ones first."""
        config, shapes = self.config, self.shapes
        yield self.class_name.endswith((*HEADED, *_SCORED, "Model"))
        # Configurations inside of others belong to models of several towers.
        inner = [value for key, value in config.items() if key not in SETTINGS_KEYS]
        yield not any(isinstance(value, dict) and "model_type" in value for value in inner)
        yield not any(map(_OTHER_ATTENTION.search, config))
        yield all(config.get(key) in _DTYPES for key in ("dtype", "torch_dtype"))
        yield has_usual_sizes(config)
        yield self._is_prefixed()
        # Decoders alone do not attend to an encoder.
        names = " ".join(shapes)
        yield ".encoder_attn." not in names or "encoder.layers." in names
        yield ".crossattention." not in names
        # No other parameters, convolutions or fused experts.
        stacked = {name for name, tensors in self.parts.items() if len(tensors) > 1}
        plain = [name for name in shapes if name not in stacked | self.stem]
        yield all(name.endswith((".weight", ".bias")) and len(shapes[name]) < 3 for name in plain)
        yield all(
            self.kinds[p.name] in _KNOWN or p.name in self.stem or self._is_beside(module)
            for module, p in self.named
        )
        linear = (p.name for _, p in self.named if self.kinds[p.name] == "attention_linear")
        yield {name.split(".")[-2] for name in linear if _BLOCK.match(name)} in _ATTENTION
        yield is_ordered(p.name for _, p in self.named)
        yield self._has_whole_blocks()
        yield self._has_known_experts()
        yield self._has_known_sizes()
        # A head that is stored, or tied by the setting, whose default is that of the class.
        heads = [p for _, p in self.named if self.kinds[p.name] == "lm_head" and len(p.shape) == 2]
        is_tied = config.get("tie_word_embeddings") is True
        yield len(heads) == int(self.is_headed)
        yield not self.is_headed or is_tied == any(p.tied_to for p in heads)
        yield is_tied or self.ties.keys().isdisjoint(shapes)
        # Two stored biases of a tied head may be tied as well.
        biases = [p for _, p in self.named if self.kinds[p.name] == "lm_head" and len(p.shape) == 1]
        yield not is_tied or sum(p.tied_to is None for p in biases) < 2
        yield self._has_known_inputs()
        yield bool(self.attention_widths)

    def _is_prefixed(self) -> bool:
        """Return whether the names are those in memory: a body inside of a head has a prefix."""
        heads = {"lm_head", "cls", "proj_out", "vocab_transform", "vocab_layer_norm"}
        heads |= {"vocab_projector", "classifier", "pre_classifier", "score", "qa_outputs"}
        first = {name.partition(".")[0] for name in self.shapes} - heads
        if self.class_name.endswith("Model") and not self.is_headed:
            return len(first) > 1 or first <= {"decoder", "encoder"}
        if first == {"shared", "encoder", "decoder"}:
            return any(name.startswith("encoder.block.") for name in self.shapes)
        # Bodies called otherwise may call their head otherwise.
        is_named = "lm_head.weight" not in self.ties or first <= {"model", "transformer"}
        return len(first) == 1 and is_named and first.isdisjoint({"decoder", "encoder"})

    def _is_beside(self, module: str) -> bool:
        """Return whether a module outside of the blocks belongs to the class."""
        if self.is_headed:
            return bool(_TRANSFORM.fullmatch(module))
        if self.class_name.endswith(_SCORED) and _SCORES.fullmatch(module):
            return True
        has_pooler = self.class_name.endswith(("Model", *_AT_ONCE))
        return has_pooler and bool(_POOLER.fullmatch(module))

    def _has_whole_blocks(self) -> bool:
        """Return whether towers have as many blocks as announced, with tensors of equal shapes.

        Some blocks of a mixture may have a plain MLP.
        """
        blocks: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        kinds: dict[tuple[str, str], set[Shape]] = defaultdict(set)
        for name, shape in self.shapes.items():
            if match := _BLOCK.match(name):
                kinds[match["tower"], match["rest"]].add(shape)
                if not _POSITIONS.search(name):
                    blocks[match["tower"]][int(match["number"])].add(match["rest"])
            elif re.search(r"\.\d", name):
                return False
        encoder = first_count(self.config, *_BLOCKS) or 0
        counts = [encoder, first_count(self.config, *_DECODER_BLOCKS) or encoder]
        towers = [blocks[tower] for tower in sorted(blocks, reverse=True)]  # encoders first
        most = 2 if expert_stacks(self.shapes) else 1
        for found_blocks, count in zip(towers, counts, strict=False):
            forms = {frozenset(rests) for rests in found_blocks.values()}
            other = frozenset.union(*forms) - frozenset.intersection(*forms)
            is_even = len(forms) <= most and all(rest.startswith("mlp.") for rest in other)
            if (len(found_blocks), max(found_blocks)) != (count, count - 1) or not is_even:
                return False
        return 0 < len(towers) < 3 and all(len(shapes) == 1 for shapes in kinds.values())

    def _has_known_sizes(self) -> bool:
        """Return whether all tensors have the announced sizes."""
        named = [(n, s) for n, s in self.shapes.items() if not _POSITIONS.search(n)]
        tables = [s for n, s in named if self.kinds[n] == "embedding" and n not in self.stem]
        announced = {n for n in self.config.values() if type(n) is int}
        return (
            tables.count((self.vocabulary, self.width)) == int(not self.is_image)
            and all(len(table) == 2 and table[1] == self.width for table in tables)
            # Two rows of a table of positions may be for padding.
            and all(announced.intersection((rows, rows - 2)) for rows, _ in tables)
            and all(map(self._is_sized, self.described.modules))
        )

    def _is_sized(self, module: Module) -> bool:
        """Return whether matrices, biases and norms of a module have the announced sizes."""
        width, kind, word = self.width, module.group, module.name.rpartition(".")[2]
        wide = self.head_dim * self.heads
        narrow = self.head_dim * (first_count(self.config, "num_key_value_heads") or self.heads)
        inner = {n for key in _INNER if type(n := self.config.get(key)) is int} or {4 * width}
        rows = {"q": wide, "k": narrow, "v": narrow}
        rows |= dict.fromkeys(("qkv_proj", "query_key_value", "c_attn"), wide + 2 * narrow)
        outputs = rows.get(word, rows.get(word[:1]))
        sizes = {
            "attention_linear": {(outputs, width) if outputs else (width, wide)},
            "mlp_linear": {*product(inner, [width]), *product([width], inner)},
            "lm_head": {(self.vocabulary, width)},
        }.get(kind if kind == "lm_head" or _BLOCK.match(module.name) else "")
        norms = {(size,) for size in (width, self.head_dim, wide, narrow, *inner)}
        vectors = {"norm": norms, "lm_head": {(self.vocabulary,)}}.get(kind, set())
        tensors = [p for p in module.parameters if kind != "embedding" and p.name not in self.stem]
        for p in tensors:
            if p.matrix:
                down, across = p.matrix
                vectors.add((down,))
                size = (down / 2 if "gate_up_proj" in p.name else down, across)
                if size not in sizes if sizes else across != width:
                    return False
        return all(p.matrix or p.shape in vectors for p in tensors)

    def other_sizes(self) -> dict[str, int]:
        """Return width, vocabulary and number of blocks of the tensors where others are announced.

        Classes leave out tensors of further blocks.
        """
        tables = [s for n, s in self.shapes.items() if self.kinds[n] == "embedding" and len(s) == 2]
        rows, width = max(tables, default=(self.vocabulary, self.width))
        numbers = [int(match["number"]) for match in map(_BLOCK.match, self.shapes) if match]
        blocks = 1 + max(numbers, default=-1)
        sizes = ((_WIDTH, width), (("vocab_size",), rows), (_BLOCKS, blocks))
        announced = {key for key, value in self.config.items() if type(value) is int}
        stored = {
            k: size for keys, size in sizes for k in [*filter(announced.__contains__, keys)][:1]
        }
        least = {key: 0 if key in _BLOCKS else size for key, size in stored.items()}
        return {k: n for k, n in stored.items() if not least[k] <= self.config[k] <= n}

    def _has_known_inputs(self) -> bool:
        """Return whether convolutions and positions of sounds and images have announced sizes."""
        if not self.stem:
            return True
        width = self.width
        names = ("max_source_positions", "num_channels", "image_size", "patch_size")
        sounds, channels, size, patch = (first_count(self.config, name) or 0 for name in names)
        by_end = {".".join(name.split(".")[-2:]): shape for name, shape in self.shapes.items()}
        if self.is_speech:
            prefix = "model." * self.is_headed
            return self.shapes.get(f"{prefix}encoder.embed_positions.weight") == (sounds, width)
        first = by_end.get("embeddings.cls_token")
        self.rows = (size // patch) ** 2 + (first is not None) if patch else 0
        self.image = (1, channels, size, size)
        return (
            first in {None, (1, 1, width)}
            and by_end.get("embeddings.position_embeddings") == (1, self.rows, width)
            and by_end.get("projection.weight") == (width, channels, patch, patch)
        )

    def _has_known_experts(self) -> bool:
        """Return whether the experts are those announced, with a router for each stack."""
        stacks = expert_stacks(self.shapes)
        per_token = first_count(self.config, *EXPERTS_PER_TOKEN)
        announced = {
            self.config[key] for key in EXPERT_COUNTS if isinstance(self.config.get(key), int)
        }
        routers = [p.shape for _, p in self.named if self.kinds[p.name] == "router"]
        chosen = [shape for shape in routers if len(shape) == 2 and shape[0] in announced]
        if not stacks and not per_token:
            return not chosen
        counts = {*stacks.values()}
        is_known = bool(stacks) and 0 < (per_token or 0) <= min(counts)
        return is_known and counts == announced and len(chosen) == len(stacks)

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return first_count(self.config, *_HEAD_DIM) or self.width // max(self.heads, 1)

    @property
    def attention_widths(self) -> dict[int | None, int] | None:
        """Widths of queries and values, summed over the blocks, by window; None if undecided."""
        outputs = [
            (int(match["number"]), p.matrix[1])
            for module, p in self.named
            if p.matrix and self.kinds[p.name] == "attention_linear" and groups.head_axis(module)
            if (match := _BLOCK.match(p.name))
            # Sounds have a fixed length.
            and not (self.is_speech and re.search(r"encoder\.|encoder_attn", p.name))
        ]
        if not outputs:
            return None
        widths: dict[int | None, int] = defaultdict(int)
        for number, size in outputs:
            window = self._window(number)
            if window == 0:
                return None
            widths[window] += 2 * size
        return dict(widths)

    def _window(self, number: int) -> int | None:
        """Return the window of the attention of a block; None for all positions, 0 if unknown."""
        kinds, window = self.config.get("layer_types"), first_count(self.config, "sliding_window")
        if isinstance(kinds, list):
            known = {"full_attention": None, "sliding_attention": window or 0}
            return known.get(str(kinds[number]), 0) if number < len(kinds) else 0
        # Transformers writes every setting of a class, and names its version. Older configurations
        # name none, but no class with a table of positions has the setting `sliding_window`.
        has_positions = not all(is_of_tokens(name, (1, 1)) for name in self.shapes)
        named = {"sliding_window", "transformers_version"}
        is_written = has_positions or not named.isdisjoint(self.config)
        if "window_size" in self.config or not is_written:  # GPT-Neo has local attention
            return 0
        is_alternating = any("pre_feedforward" in name for name in self.shapes)
        is_mixed = is_alternating or any("pattern" in key for key in self.config)
        if window is None or self.config.get("use_sliding_window") is False:
            return 0 if is_mixed and window else None
        return 0 if is_mixed or "use_sliding_window" in self.config else window

    def description(self) -> Description:
        """Return the modules with uses and heads."""
        modules = tuple(module.changed(self._used) for module in self.described.modules)
        if not self.is_image:
            return replace(self.described, modules=modules, attention_widths=self.attention_widths)
        facts = {"rows": self.rows, "input": "pixel_values", "shape": str(self.image)}
        note = say("note.rows_are_tokens", **facts)
        return replace(self.described, modules=modules, notes=(note,))

    def _used(self, p: Parameter) -> Parameter:
        """Return a parameter with its uses and the width of its heads."""
        module, in_block = p.name.rpartition(".")[0], _BLOCK.match(p.name)
        if p.matrix and self.kinds[p.name] == "attention_linear" and in_block:
            p = replace(p, head_dim=self.head_dim)
        is_scored = self.class_name.endswith(_AT_ONCE) and "classifier" in module
        once = Fraction(0)
        if p.matrix and (is_scored or _POOLER.fullmatch(module)):
            once = Fraction(1)
        elif p.matrix and self.is_speech and _OF_SOUND.search(p.name):
            once = Fraction(first_count(self.config, "max_source_positions") or 0)
        # A head that has a bias of its matrix reads no other one.
        is_unread = once or f"{module}.decoder.bias" in self.untied
        return replace(p, uses=NEVER, uses_per_sequence=once) if is_unread else p
