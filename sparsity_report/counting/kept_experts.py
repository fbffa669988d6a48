"""Lists of the experts that a model keeps, as values and as files."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import sparsity_report
from sparsity_report.counting import expert_lists
from sparsity_report.counting.expert_lists import Layer
from sparsity_report.counting.pruning import Basis
from sparsity_report.counting.pruning_policies import EXPERT_SCORES
from sparsity_report.errors import check_options, explained, opening, printable, writable
from sparsity_report.files.atomic import write_file
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.weights.weights import Module, Parameter, Weights
from sparsity_report.words.display_names import method_name
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    import pandas as pd

#: A file or a mapping with kept or removed experts.
ListLike = str | os.PathLike[str] | Mapping[int, Sequence[int]] | Mapping[str, Any]
#: Scores by which experts are kept, and a list from elsewhere.
METHODS = (*EXPERT_SCORES, "expert_list")
# Ends of the names of llama.cpp's tensors, which together are the experts of a block.
_TENSOR = re.compile(r"_[a-z_]+_exps$")
# Types of the values of a basis: of a file, and of a text.
_BASES = ([str, str, type(None), type(None)], [str, str, int, int])


@dataclass(frozen=True, repr=False, eq=False)
class KeptExperts:
    """A choice of the experts that a model keeps; the model is not modified.

    Parameters
    ----------
    weights : Weights
        The model with all its experts.
    kept : mapping of str to sequence of int
        Numbers of the kept experts, from 0, by the name in memory of the module that holds them,
        such as ``model.layers.0.mlp.experts``, of the module around it, or by the number of the
        block. The value has them by module, in ascending order. A module that is left out keeps
        all.
    method : str
        ``"reap"``, ``"frequency"``, ``"magnitude"``, ``"random, seed 0"`` or ``"expert_list"``.
    basis : Basis, optional
        Calibration text or file.
    use : pandas.DataFrame, optional
        Router use on that text, the ``experts`` of a :class:`Calibration`.

    Attributes
    ----------
    counts : mapping of str to int
        Experts before the removal, by the same names.

    Raises
    ------
    SparsityReportError
        A module has no experts or shares them with another one; a number is out of range or there
        twice; or fewer experts are kept than a token uses.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import transformers
    >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    >>> config = transformers.MixtralConfig(vocab_size=8, num_local_experts=4, **sizes)
    >>> weights = sr.load(transformers.MixtralForCausalLM(config))
    >>> kept = sr.KeptExperts(weights, {0: [0, 2, 3]})
    >>> kept.kept
    {'model.layers.0.mlp.experts': (0, 2, 3)}
    """

    weights: Weights
    kept: Mapping[Any, Sequence[int]]
    method: str = "expert_list"
    basis: Basis | None = None
    use: pd.DataFrame | None = None
    counts: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        stacks, chosen = checked_stacks(self.weights), dict[str, tuple[int, ...]]()
        for key, numbers in self.kept.items():
            name = find_module(self.weights, key)
            if name in chosen:
                raise self.weights.wrong(f"has two lists of experts for {name}; keep one")
            chosen[name] = _checked(self.weights, name, stacks[name], numbers)
        kept = {name: chosen.get(name, tuple(range(p.experts))) for name, p in stacks.items()}
        object.__setattr__(self, "counts", {name: p.experts for name, p in stacks.items()})
        object.__setattr__(self, "kept", kept)

    def __repr__(self) -> str:
        total, modules = sum(self.counts.values()), len(self.counts)
        name, method = short_name(self.weights.name), method_name(self.method)
        numbers = {"kept": total - self.removed, "total": total, "modules": modules}
        return say("repr.kept_experts", name=name, method=method, **numbers)

    @property
    def removed(self) -> int:
        """Number of removed experts of all modules.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> import transformers
        >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
        >>> config = transformers.MixtralConfig(vocab_size=8, num_local_experts=4, **sizes)
        >>> weights = sr.load(transformers.MixtralForCausalLM(config))
        >>> sr.KeptExperts(weights, {0: [0, 2, 3]}).removed
        1
        """
        return sum(self.counts.values()) - sum(map(len, self.kept.values()))

    @property
    def label(self) -> str:
        """Suffix in the names of variants: ``6of8``; sums if modules keep unequal numbers.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> import transformers
        >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
        >>> config = transformers.MixtralConfig(vocab_size=8, num_local_experts=4, **sizes)
        >>> weights = sr.load(transformers.MixtralForCausalLM(config))
        >>> sr.KeptExperts(weights, {0: [0, 2, 3]}).label
        '3of4'
        """
        pairs = {(len(self.kept[name]), count) for name, count in self.counts.items()}
        total = sum(self.counts.values())
        kept, count = pairs.pop() if len(pairs) == 1 else (total - self.removed, total)
        return f"{kept}of{count}"

    def overlap(self, other: KeptExperts) -> pd.DataFrame:
        """Compare with another list for the same model, module by module.

        Parameters
        ----------
        other : KeptExperts
            A list for weights with the same experts.

        Returns
        -------
        pandas.DataFrame
            One row per module: ``module_name``, ``experts`` before the removal, ``both`` (kept by
            both lists), ``first`` and ``second`` (kept by one list alone) and ``overlap``, the
            share kept by both of those kept by either.

        Raises
        ------
        SparsityReportError
            The lists are for models with other experts.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> import transformers
        >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
        >>> config = transformers.MixtralConfig(vocab_size=8, num_local_experts=4, **sizes)
        >>> weights = sr.load(transformers.MixtralForCausalLM(config))
        >>> one, other = (sr.read_experts(weights, {"0": kept}) for kept in ([0, 1, 2], [1, 2, 3]))
        >>> one.overlap(other)["overlap"].tolist()
        [0.5]
        """
        import pandas as pd

        if self.counts != other.counts:
            raise self.weights.wrong(
                f"has other experts than {other.weights.name}; compare lists for one model"
            )
        rows = []
        for name, count in self.counts.items():
            one, two = {*self.kept[name]}, {*other.kept[name]}
            both = len(one & two)
            alone, share = (len(one - two), len(two - one)), both / len(one | two)
            rows.append((name, count, both, *alone, share))
        columns = ["module_name", "experts", "both", "first", "second", "overlap"]
        return pd.DataFrame(rows, columns=columns)

    def save(self, path: str | os.PathLike[str], *, program: str = "sparsity-report") -> Path:
        r"""Write the list as a file, which :func:`read_experts` reads back.

        Router use is not written. Formats of other programs hold neither the method nor its basis,
        and most of them name the blocks by number.

        Parameters
        ----------
        path : path-like
            The file to write.
        program : str
            Program that reads the file: ``"sparsity-report"``; ``"llm-compressor"``, by module;
            ``"vllm"``, a list of removed experts; ``"vllm-ascend"``, without its
            ``expert_prune_ratio``; ``"reap-mlx"``, or ``"0xsero"``.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        SparsityReportError
            The file cannot be written, or the format cannot hold the list.

        Examples
        --------
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import sparsity_report as sr
        >>> import transformers
        >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
        >>> config = transformers.MixtralConfig(vocab_size=8, num_local_experts=4, **sizes)
        >>> weights = sr.load(transformers.MixtralForCausalLM(config))
        >>> kept = sr.KeptExperts(weights, {0: [0, 2, 3]})
        >>> with TemporaryDirectory() as folder:
        ...     file = kept.save(Path(folder, "experts.jsonl"), program="vllm-ascend")
        ...     file.read_text()
        '{"0": [0, 2, 3]}\n'
        """
        if program != "sparsity-report":
            return write_file(path, self._text_for(program))
        data = {
            "format": expert_lists.OWN,
            "version": 1,
            "written_by": f"sparsity-report {sparsity_report.__version__}",
            "model": self.weights.name,
            "method": self.method,
            "basis": self.basis and asdict(self.basis),
            "counts": self.counts,
            "kept": self.kept,
        }
        return write_file(path, json.dumps(data, ensure_ascii=False, indent=1))

    def _text_for(self, program: str) -> str:
        """Return the text of the list in the format of another program."""
        writers = {o.name: (o.write, o.is_even) for o in expert_lists.FORMATS if o.write}
        check_options("save", [program], ["sparsity-report", *writers])
        write, is_even = writers[program]
        if is_even and len(sizes := {*map(len, self.kept.values())}) > 1:
            raise self.weights.wrong(
                f"would keep {min(sizes):,} to {max(sizes):,} experts per module, but lists of "
                f"{program} have one number; write a list for another program"
            )
        layers = []
        for module in (each for each in self.weights.modules if each.name in self.kept):
            around, kept = module.name.rpartition(".")[0], self.kept[module.name]
            layers.append(Layer(module.block, kept, False, self.counts[module.name], around))
        rows = write(self.weights.name, layers)
        read_experts(self.weights, {key: row[key] for row in rows for key in row})
        return "".join(json.dumps(row) + "\n" for row in rows)


def read_experts(weights: Weights, file: ListLike, *, keep: float | None = None) -> KeptExperts:
    """Read a list of kept or removed experts from a file or a mapping.

    The format is recognized by the content:

    - a file of :meth:`KeptExperts.save`;
    - vLLM's ``--riy-expert-profile``, and profiles of llama.cpp's ``llama-prune``, which list
      removed experts;
    - vllm-ascend's ``expert_list_file``;
    - the report of llm-compressor's ``REAPPruningModifier(report_path=…)``;
    - the ``pruning-plan.json`` of 0xSero/reap-mlx, and checkpoints of egesabanci/reap-mlx;
    - plans of 0xSero/glm-5.2-nonuniform, and ``reap_plan.json`` of 0xSero's models;
    - any object that maps layers to lists of the kept experts. A layer is named by the module of
      the experts, a module around it, or the number of the block, which counts layers without
      experts, too.

    The authors' REAP, llama.cpp's ``llama-expert-profile`` and mergekit write no list: pass scores
    to :func:`reap`.

    Parameters
    ----------
    weights : Weights
        The model with all its experts.
    file : path-like or mapping
        JSON, or one JSON object on each line.
    keep : int or float, optional
        Number or share of the experts to keep, if the lists rank more: the first of each, rounded
        down as by vllm-ascend.

    Returns
    -------
    KeptExperts
        A module that is not in the list keeps all its experts.

    Raises
    ------
    SparsityReportError
        The file cannot be read, or its list is no choice among the experts of this model.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import transformers
    >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    >>> config = transformers.MixtralConfig(vocab_size=8, num_local_experts=4, **sizes)
    >>> weights = sr.load(transformers.MixtralForCausalLM(config))
    >>> kept = sr.read_experts(weights, {"model.layers.0.mlp": [0, 1, 3]})
    >>> kept.label, kept.removed
    ('3of4', 1)
    >>> sr.read_experts(weights, {"version": 1, "pruned_experts": [[0, 2]]}).kept
    {'model.layers.0.mlp.experts': (0, 1, 3)}
    """
    name, data = "list", cast(Any, file)
    if not isinstance(file, Mapping):
        name = Path(file).name
        with opening(Path(file), "list"), reading(name):
            data = expert_lists.read_file(Path(file))
    with reading(name):
        counts: Any = {key: p.experts for key, p in routed_stacks(weights).items()}
        listed = data.get("counts", counts)
        if weights.source == "gguf":  # which has other names
            counts, listed = ([*each.values()] for each in (counts, listed))
        if listed != counts:
            raise weights.wrong(f"has other experts than those of {name}; give a list for them")
        if is_own := data.get("format") == expert_lists.OWN:
            method, basis = data["method"], data["basis"] and Basis(**data["basis"])
            known = basis is None or [*map(type, astuple(basis))] in _BASES
            if data["version"] != 1 or str(method).split(", ")[0] not in METHODS or not known:
                raise ValueError("is damaged or of another version")
        kept = dict[Any, Sequence[int]]()
        for layer in expert_lists.read_layers(data):
            numbers = _chosen(weights, name, layer, keep)
            if kept.setdefault(layer.key, numbers) != numbers:
                raise ValueError(f"it keeps and removes other experts of layer {layer.key!r}")
        if not kept:
            raise ValueError("it has no layers")
        result = KeptExperts(weights, kept)
        if is_own:
            if (model := data["model"]) != weights.name:
                note = say("note.list_of_model", file=name, model=printable(str(model), 80))
                weights.notes = (*dict.fromkeys((*weights.notes, note)),)
            return replace(result, method=method, basis=basis)
        return replace(result, basis=digest_of(name, result.kept))


def reading(name: str) -> AbstractContextManager[None]:
    """Turn errors from reading a list or a mapping of scores into one-line errors."""

    def explain(error: Exception) -> str:
        reason = error if isinstance(error, ValueError) else "it has no lists or scores by layer"
        if isinstance(error, KeyError):
            reason = f"it lacks {error}"
        if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            reason = "it is not JSON"
        return f"{name}: {reason}; give experts or scores of these weights by module or block"

    return explained(explain, AttributeError, LookupError, TypeError, ValueError)


def digest_of(name: str, values: Mapping[str, Any]) -> Basis:
    """Return lists from elsewhere as the basis of a choice."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return Basis(writable(name), digest[:16])


def find_module(weights: Weights, key: object) -> str:
    """Return the module of experts that another program names: it, its parent or its block.

    In a GGUF model, which has other names, the block is the first number in a name.
    """
    stacks, blocks = checked_stacks(weights), {o.name: str(o.block) for o in weights.modules}
    number = re.fullmatch(r"(?:blk\.|layers?[._])?(\d+)", str(key))
    block = number[1] if number else None
    if weights.source == "gguf":
        block = str(Module(str(key), "", "", ()).block)
    names = [o for o in stacks if (block == blocks[o] if block else f".{key}." in f".{o}.")]
    known = [module.block for module in weights.modules if module.name in stacks]
    if block and not names:
        raise weights.wrong(
            f"has no experts in block {block}, which the list names, but in "
            f"{printable(', '.join(map(str, known)), 80)}; give a list for this model"
        )
    if len(names) != 1:
        first = next(iter(stacks))
        advice = "" if names else f", or by the number of its block, here {blocks[first]}"
        raise weights.wrong(
            f"has {len(names):,} modules of experts that {key!r} may name; name each like {first!r}"
            f"{advice}"
        )
    return names[0]


def routed_stacks(weights: Weights) -> dict[str, Parameter]:
    """Return a parameter of each module of :func:`routed_parameters`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> routed_stacks(sr.load())
    {}
    """
    return {name: parameters[-1] for name, parameters in routed_parameters(weights).items()}


def routed_parameters(weights: Weights) -> dict[str, list[Parameter]]:
    """Return the parameters that hold several experts for a router, by module in memory.

    The tensors of a block in llama.cpp count as one module, under the name of the first.
    """
    stacks: dict[str, tuple[str, list[Parameter]]] = {}
    for module in weights.modules:
        for p in module.parameters:
            if p.experts > 1 and p.uses < 1:
                stack = _TENSOR.sub("", module.name)
                stacks.setdefault(stack, (module.name, []))[1].append(p)
    return dict(stacks.values())


def checked_stacks(weights: Weights) -> dict[str, Parameter]:
    """Return :func:`routed_stacks`; refuse a model without experts, or with shared ones."""
    stacks = routed_stacks(weights)
    if not stacks:
        raise weights.wrong(
            "has no modules with several experts among which a router chooses; open a mixture of "
            "experts with its config.json"
        )
    for p in weights.parameters:
        if p.tied_to and p.experts > 1:
            raise weights.wrong(
                f"shares the experts of {p.name} with {p.tied_to}, so they cannot be removed from "
                "one alone; save the model with separate tensors"
            )
    return stacks


def expert_groups(stack: Parameter) -> list[range]:
    """Return the groups of experts among which a router chooses first."""
    size = stack.experts // stack.expert_groups[0]
    return [range(start, start + size) for start in range(0, stack.experts, size)]


def _chosen(weights: Weights, name: str, layer: Layer, keep: float | None) -> Sequence[int]:
    """Return the kept experts of a layer of the list `name`."""
    module, numbers = find_module(weights, layer.key), layer.numbers
    count = checked_stacks(weights)[module].experts
    if layer.experts not in {None, count}:
        raise ValueError(f"it is for {layer.experts!r} experts in {module}, not {count:,}")
    if layer.is_removed and keep is None:
        return sorted({*range(count)} - _known_experts(weights, module, count, numbers))
    if keep is not None:
        number = keep if isinstance(keep, int) else int(round(count * keep, 6))
        if layer.is_removed or not 0 < number <= len(numbers):
            raise ValueError(f"it ranks no {keep!r} experts of {module}")
        numbers = numbers[:number]
    elif len(numbers) == count and [*numbers] != sorted(numbers):
        raise weights.wrong(
            f"has {count:,} experts in {module}, and {name} ranks them all; shorten its lists to "
            "the kept experts, or pass keep= to read_experts()"
        )
    return sorted(numbers)


def _checked(
    weights: Weights, name: str, stack: Parameter, numbers: Sequence[int]
) -> tuple[int, ...]:
    """Return the kept experts of a module; refuse numbers that are no choice among them."""
    known = _known_experts(weights, name, stack.experts, numbers)
    sizes = {len(known.intersection(group)) for group in expert_groups(stack)}
    if len(sizes) > 1:
        raise weights.wrong(
            f"would keep {min(sizes):,} to {max(sizes):,} experts of the groups that the router of "
            f"{name} chooses from; keep equally many of each"
        )
    reached, used = sizes.pop() * stack.expert_groups[1], math.ceil(stack.experts * stack.uses)
    if reached < used:
        raise weights.wrong(
            f"would keep {len(numbers):,} of the {stack.experts:,} experts of {name}, so a "
            f"token can reach {reached:,}, but it uses {used:,}; keep more"
        )
    return tuple(sorted(known))


def _known_experts(weights: Weights, name: str, count: int, numbers: Sequence[int]) -> set[int]:
    """Return the numbers of experts in a list; refuse others, and a number that comes twice."""
    known = {n for n in numbers if type(n) is int and 0 <= n < count}
    if len(known) != len(numbers):
        others = [n for n in numbers if type(n) is not int or n not in known]
        odd = [*others, *(f"{n} twice" for n in known if [*numbers].count(n) > 1)][0]
        raise weights.wrong(
            f"has experts 0 to {count - 1:,} in {name}, but the list has "
            f"{printable(str(odd), 40)}; give a list for these weights"
        )
    return known
