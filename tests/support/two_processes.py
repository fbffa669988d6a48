"""Tracked training in one process and, run as a program, in one of two that share its model.

    python two_processes.py FOLDER RANK

writes the log of each case to FOLDER.
"""

import copy
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import softshrink
from torch.nn.parallel import DistributedDataParallel
from transformers import GPT2Config, GPT2LMHeadModel

import sparsity_report as sr

STEPS = 4


def odd():
    """Return layers with odd numbers of rows."""
    return nn.Sequential(nn.Linear(24, 7), nn.ReLU(), nn.Linear(7, 3, bias=False))


def gpt2(width=20, inner=27):
    """Return a model whose matrices have inputs first."""
    sizes = {"n_embd": width, "n_inner": inner, "n_head": 2, "n_layer": 2, "n_positions": 8}
    dropout = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=31, **sizes, **dropout, **ends))


# By name: the model, its pruning, and how it is tracked and sharded.
CASES = {
    "odd": (odd, lambda w: sr.global_magnitude(w, 0.5), {}),
    "gpt2": (gpt2, lambda w: sr.global_magnitude(w, 0.5), {}),
    "pattern": (lambda: gpt2(32, 48), lambda w: sr.n_m(w, 2, 4), {"mode": "hold"}),
    "mask": (gpt2, lambda w: sr.global_magnitude(w, 0.5), {"masked": True, "mode": "hold"}),
    "replicas": (gpt2, lambda w: sr.global_magnitude(w, 0.5), {"mesh": (2, 1)}),
    "ddp": (gpt2, lambda w: sr.global_magnitude(w, 0.5), {"mesh": None}),
}


def train(case, log=None, shard=None):
    """Track a model over a few steps that revive zeros and make new ones."""
    torch.manual_seed(0)
    make, prune, options = CASES[case]
    model = make()
    pruning = prune(sr.load(copy.deepcopy(model)))
    mask = {"mask": pruning} if "masked" in options else {}
    model = model if mask else sr.masked(pruning).module()
    model = shard(model, options) if shard else model
    tracker = sr.track(model, every=1, log=log, mode=options.get("mode", "report"), **mask)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    ids = torch.arange(16).view(2, 8)
    for _ in range(STEPS):
        loss(model, ids).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for parameter in model.parameters():
                local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
                local.copy_(softshrink(local, 0.01))
            loss(model, ids)  # leaves the outermost parameters whole
        tracker.step()
    return tracker


def loss(model, ids):
    """Return a loss."""
    if not isinstance(model, nn.Sequential):
        return model(input_ids=ids, labels=ids).loss
    return model(torch.ones(2, 24)).square().mean()


def shard(model, options):
    """Share a model between both processes."""
    shape = options.get("mesh", (2,))
    if shape is None:
        return DistributedDataParallel(model)
    names = ("replicas", "shards")[-len(shape) :]
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    for block in model.transformer.h if hasattr(model, "transformer") else []:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def main(folder, rank):
    """Train each case, and end with the errors of a zero that is lost and of late sharding."""
    torch.set_num_threads(1)
    address = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    for case in CASES:
        train(case, folder / f"{case}.jsonl", shard)
    CASES["raise"] = (*CASES["gpt2"][:2], {"mode": "raise"})
    tracker = sr.track(model := gpt2(), every=1)
    shard(model, {})
    errors = []
    for fail in (lambda: train("raise", None, shard), tracker.step):
        try:
            fail()
        except sr.SparsityReportError as error:
            errors.append(f"{error}\n")
    (folder / f"errors-{rank}").write_text("".join(errors))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
