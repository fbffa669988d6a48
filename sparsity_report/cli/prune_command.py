"""``sparsity-report prune`` and ``expand``: pruned or unpacked models as new files."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparsity_report.cli.compared_models import check_paths
from sparsity_report.cli.options import Model, PruneOptions, WriteOptions, dataclass_options
from sparsity_report.cli.terminal import print_line, quiet_libraries, workers
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import check_free

if TYPE_CHECKING:
    from sparsity_report.counting.pruning import Pruning
    from sparsity_report.counting.pruning_policies import Policy
    from sparsity_report.study.variants import Variant
    from sparsity_report.weights.weights import Weights


@dataclass_options
def prune(model: Model = None, *, options: PruneOptions) -> None:
    """Prune a model and write it as safetensors files, or a GGUF model without some experts.

    Files of a safetensors model keep their names, dtypes and headers. The folder appears when it
    is complete and its zeros were counted again. Blocks of a GGUF file are copied.
    """
    start = time.perf_counter()
    check_paths(model, options.base)
    check_free(options.out)
    chosen = _check(options)
    import sparsity_report as sr
    from sparsity_report.cli.policy_grid import chosen_experts, needs_class

    with quiet_libraries():
        rules = options.policy or options.sparsity or options.mask
        is_pruned = bool(rules or options.keep_experts is None)
        needs = is_pruned or options.out.suffix != ".gguf" or needs_class(options)
        weights = _opened(model, options, is_pruned, needs, blacklist=options.blacklist or None)
        variant = sr.dense(weights)
        if options.keep_experts is not None:
            kept, *_ = chosen_experts(weights, options)
            variant = sr.without_experts(kept)
        if is_pruned:
            pruned = sr.masked(_pruning(variant.weights, options, *chosen))
            variant = replace(pruned, kept=variant.kept)
        _write(variant, options, start)


@dataclass_options
def expand(model: Model = None, *, options: WriteOptions) -> None:
    """Unpack a packed, sparse or GGUF model to dense safetensors files that transformers opens."""
    start = time.perf_counter()
    check_paths(model, options.base)
    check_free(options.out)
    import sparsity_report as sr

    with quiet_libraries():
        weights = _opened(model, options, is_pruned=True, needs_class=True)
        is_plain = weights.source == "safetensors" and options.base is None
        if is_plain and not any(p.packing for p in weights.parameters):
            raise weights.wrong("holds no packed weights: its files are dense already; copy them")
        _write(sr.dense(weights), options, start, unpack=True)


def _opened(
    model: str | None, options: WriteOptions, is_pruned: bool, needs_class: bool, **rules: Any
) -> Weights:
    import sparsity_report as sr
    from sparsity_report.counting.checkpoint_writer import check_place

    weights = sr.load(
        model, config=needs_class and not options.by_names, **options.opening, **rules
    )
    check_place(weights, options.out, is_pruned)
    return weights


def _check(options: PruneOptions) -> tuple[Policy, float]:
    """Return the policy and its sparsity; refuse contradictory options."""
    from sparsity_report.cli.policy_grid import check_experts, read_policies

    choices = read_policies(options.policy, options.sparsity)
    rules = {"--policy": options.policy, "--sparsity": options.sparsity}
    given = [name for name, values in rules.items() if values]
    if options.mask is not None and given:
        raise SparsityReportError(f"--mask decides what is pruned; leave out {', '.join(given)}")
    if len(choices) != 1:
        raise SparsityReportError(
            f"--policy and --sparsity give {len(choices)} prunings, and one is written; give one"
        )
    check_experts(options, choices, is_one=True)
    return choices[0]


def _pruning(weights: Weights, options: PruneOptions, policy: Policy, sparsity: float) -> Pruning:
    """Return the one pruning that the options choose."""
    import sparsity_report as sr
    from sparsity_report.counting.policies import policy_registry
    from sparsity_report.counting.pruning import Inputs

    if options.mask is not None:
        return sr.import_mask(weights, options.mask)
    with workers(options.workers) as executor:
        text = next(iter(options.calibration), None)
        calibration = sr.calibrate(weights, text) if policy.calibrates else None
        inputs = Inputs(calibration, executor=executor, cache=options.cache)
        return policy_registry.prune(policy, weights, sparsity, inputs)


def _write(variant: Variant, options: WriteOptions, start: float, **settings: Any) -> None:
    """Write a variant; print its zeros, its bytes and the seconds since the command began."""
    import sparsity_report as sr
    from sparsity_report.study.frames import note_findings
    from sparsity_report.study.layers import total_frame
    from sparsity_report.words.sentences import say

    folder = sr.write_checkpoint(variant, options.out, base_model=options.base_model, **settings)
    seconds = time.perf_counter() - start
    files = folder.glob("*.safetensors") if folder.is_dir() else [folder]
    figures = {
        "folder": str(folder),
        "parameters": variant.weights.total,
        "bytes": sum(file.stat().st_size for file in files),
        "seconds": seconds,
    }
    if kept := variant.kept:
        experts = sum(kept.counts.values())
        counts = {"experts": experts - kept.removed, "experts_before": experts}
        print_line(say("prune.experts", before=kept.weights.total, **counts, **figures))
        for note in note_findings(kept.weights.notes, {"note.list_of_model"}):
            print_line(note)
    if folder.is_file():  # whose blocks were copied and not counted
        print_line(say("prune.copied", **figures))
        return
    total = total_frame(variant.layers()).iloc[0]
    shares = {
        "share": total["sparsity_model"],
        "prunable": total["prunable_total"],
        "pruned": total["prunable_total"] - total["prunable_nonzero"],
        "prunable_share": total["sparsity_prunable"],
    }
    if total["prunable_total"] and (total["sparsity_model"] or not kept):
        print_line(say("prune.zeros", **figures, **shares))
    print_line(say("prune.written", **figures))
