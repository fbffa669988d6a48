"""One linear layer: LinearCSR against dense, torch's own calls, scipy, MKL, and memory's limit.

Everything of a case is timed in turn beside LinearCSR once more, as `sr.measure_latency` does; a
ratio stands with its 99 % interval, and what lies within the control's spread, or was timed while
other programs had the cores, is no result, whatever its value.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from scipy import sparse
from torch.nn.functional import linear

import sparsity_report as sr
from sparsity_report.measure import crossover, timed_calls
from sparsity_report.study.derived import speedups

SHAPES = ((3072, 768), (768, 3072), (768, 768), (4096, 11008))
LEVELS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
TOKENS = (1, 16, 128)
AIM = 0.75


def scipys(arrays, shape, x):
    crow, col, values = (array.numpy() for array in arrays)
    matrix = sparse.csr_matrix((values, col, crow), shape=shape)
    return matrix, np.ascontiguousarray(x.numpy().T)


def with_scipy(shape, x, arrays):
    matrix, turned = scipys(arrays, shape, x)
    return lambda: np.ascontiguousarray((matrix @ turned).T)


def with_mkl(shape, x, arrays):
    from sparse_dot_mkl import dot_product_mkl

    matrix, turned = scipys(arrays, shape, x)
    return lambda: np.ascontiguousarray(dot_product_mkl(matrix, turned).T)


class Module(torch.nn.Module):
    """A call as a model makes it: of a module that holds the matrix."""

    def __init__(self, call, matrix):
        super().__init__()
        self.call, self.matrix = call, matrix

    def forward(self, x):
        return self.call(self.matrix, x)


def of_torch(call, shape, x, arrays):
    return partial(call, torch.sparse_csr_tensor(*arrays, shape, check_invariants=False), x)


def of_a_module(shape, x, arrays):
    matrix = torch.sparse_csr_tensor(*arrays, shape, check_invariants=False)
    return partial(Module(WAYS["sparse.mm"], matrix), x)


# Each with its result laid out in memory as that of a dense layer, which models view.
WAYS = {
    "linear": lambda matrix, x: linear(x, matrix).contiguous(),
    "matmul": lambda matrix, x: (matrix @ x.T).T.contiguous(),
    "sparse.mm": lambda matrix, x: torch.sparse.mm(matrix, x.T).T.contiguous(),
}
IN_A_MODULE = "sparse.mm in a module"


def ways(weight, tokens):
    """A sparse product as LinearCSR, dense, and as others have it; each can be made again."""
    shape, x, layer = (
        tuple(weight.shape),
        torch.randn(tokens, weight.shape[1]),
        sr.LinearCSR(weight),
    )
    arrays = [layer.crow_indices, layer.col_indices, layer.values]
    wide = [arrays[0].long(), arrays[1].long(), arrays[2]]
    ours = timed_calls.csr_call(layer, tokens)
    found = {"ours": ours, "dense": timed_calls.dense_call(weight, tokens)}

    def add(name, make, parts):
        again = lambda: make(shape, x, [part.clone() for part in parts])  # noqa: E731
        size = sum(part.nbytes for part in parts)
        found[name] = ours._replace(
            run=make(shape, x, parts), again=again, kernel=name, weight_bytes=size
        )

    add("usual", partial(of_torch, WAYS["linear"]), wide)
    for name, call in WAYS.items():
        add(name, partial(of_torch, call), arrays)
    add(IN_A_MODULE, of_a_module, arrays)
    if tokens == 1:
        add("mv", partial(of_torch, lambda matrix, x: matrix.mv(x[0])[None]), arrays)
    add("scipy", with_scipy, arrays)
    if find_spec("sparse_dot_mkl"):
        add("sparse_dot_mkl", with_mkl, arrays)
    expected = weight @ x.T
    for call in found.values():
        # Random tokens are each call's own in ours and dense.
        if call.kernel in {"usual", "mv", "scipy", "sparse_dot_mkl", IN_A_MODULE, *WAYS}:
            assert np.allclose(np.asarray(call.run()), expected.T.numpy(), atol=2e-3), call.kernel
    return found


def case(found, cache, bench):
    """Time one case; what each takes, its ratio to ours with its interval, and the verdict."""
    ready = timed_calls.prepared([*found.values()], cache == "out of cache", bench.machine)
    if ready is None:
        return None
    timing = bench.time(ready, cache, 0, None)
    low, high = timing.spread
    told = bench.facts(timing)
    crowded = told["others"] is not None and (
        told["others"] > told["cores"] - 0.9 * told["threads"]
    )
    band = 1 + max(float(speedups.noise(low, high)), speedups.TOLERANCE)
    rows = {}
    for (name, call), time in zip(found.items(), timing.times, strict=False):
        # How many times faster than it ours is.
        ratio = 1 / time.realised_speedup
        ends = 1 / time.realised_high, 1 / time.realised_low
        beyond = ends[0] > band or ends[1] < 1 / band
        sure = (
            speedups.settled(low, high) and not crowded and time.runs >= speedups.ENOUGH and beyond
        )
        limit = call.weight_bytes / told["bandwidth"] / time.seconds
        rows[name] = {
            "seconds": time.seconds, "ours_faster": ratio, "low": ends[0], "high": ends[1],
            "stated": bool(sure), "of_limit": limit if cache == "out of cache" else None,
        }  # fmt: skip
    return {"control": (low, high), "runs": rows and time.runs, **told, "ways": rows}


def summary(cases):
    """What the aims ask for: the share of the limit, and whether anything is surely faster."""
    ratios, beaten = [], []
    aimed = tuple(f"{level} % of " for level in (70, 80, 90, 95))
    for name, one in cases.items():
        own, others = one["ways"]["ours"], one["ways"]
        large = name.startswith(aimed) and "768 × 768" not in name and ", 1 token," in name
        if large and own["of_limit"] is not None:
            ratios.append((f"share of memory's limit, {name}", own["of_limit"], ">=", AIM))
        beaten += [
            (f"{way} is faster, {name}", row["ours_faster"], ">=", 1)
            for way, row in others.items()
            if way not in {"ours", "dense"} and row["stated"] and row["ours_faster"] < 1
        ]
    sure = sum(row["stated"] for one in cases.values() for row in one["ways"].values())
    every = sum(len(one["ways"]) - 1 for one in cases.values())
    print(f"{sure} of {every} ratios lie beyond the noise", file=sys.stderr)
    count = ("cases in which another way is surely faster", len(beaten), "<=", 0)
    return [*ratios, count, *beaten]


def measure(small):
    torch.manual_seed(0)
    shapes, levels = (SHAPES[:1], (0.9,)) if small else (SHAPES, LEVELS)
    states, seconds = ("in cache", "out of cache"), 3.0
    count = len(shapes) * len(levels) * len(TOKENS) * len(states)
    bench = crossover.Bench.start(sr.Clock(precision=0.01, budget=seconds * count), None, count)
    print(bench.machine, file=sys.stderr)
    cases = {}
    with torch.inference_mode():
        for rows, columns in shapes:
            weight, order = torch.randn(rows, columns), torch.rand(rows, columns)
            for level in levels:
                for tokens in TOKENS:
                    found = ways(weight * (order >= level), tokens)
                    for cache in states:
                        some = f"{tokens} token{'s' if tokens > 1 else ''}"
                        name = f"{100 * level:.0f} % of {rows} × {columns}, {some}, {cache}"
                        if one := case(found, cache, bench):
                            cases[name] = one
                            print(line(name, one), file=sys.stderr, flush=True)
    return {"cases": cases, "ratios": summary(cases)}


def line(name, one):
    """Everything of a case in one line; what is noise is in brackets."""
    low, high = one["control"]
    said = [f"{name}: control {low:.2f} to {high:.2f}, others {one['others'] or 0:.1f}"]
    for way, row in one["ways"].items():
        limit = "" if row["of_limit"] is None else f", {100 * row['of_limit']:.0f} % of limit"
        ratio = f"{row['ours_faster']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        ratio = "" if way == "ours" else f", ours {ratio if row['stated'] else f'[{ratio}]'}"
        said.append(f"  {way} {1e6 * row['seconds']:.0f} µs{limit}{ratio}")
    return "\n".join(said)
