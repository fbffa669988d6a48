"""Train the built-in demo model and write every file of `sparsity_report/demo`.

The model is an OPT of about one million parameters, trained from scratch on the standard
library of the running Python. Needs torch, transformers, tokenizers and vl-convert-python.
Training takes about 13 minutes on two cores:

    python docs/tools/train_demo.py --out FOLDER
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import platform
import sysconfig
import time
import tokenize
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
import vl_convert
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig, OPTForCausalLM

DEMO = Path(__file__).resolve().parents[2] / "sparsity_report" / "demo"
VOCABULARY, WINDOW, BATCH = 1024, 256, 8
LEARNING_RATE, WEIGHT_DECAY, CLIP, BETAS = 3e-3, 0.1, 1.0, (0.9, 0.98)
BOS, PAD, EOS = "<s>", "<pad>", "</s>"  # ids 0, 1 and 2
VALIDATION_EVERY = 25  # every 25th file of the sorted list is held out
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "encodings", "pydoc_data"}
INSTALLED = {"site-packages", "dist-packages", "__pycache__"}


def read_sources() -> list[str]:
    """Return the distinct standard-library sources in sorted path order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    texts: dict[str, str] = {}
    for name in sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py")):
        folders = set(name.split("/")[:-1])
        if folders & (SKIPPED | INSTALLED) or name.startswith(("config-", "_sysconfigdata")):
            continue  # generated files that contain paths of this interpreter's build
        with tokenize.open(root / name) as file:
            text = file.read()
        if text.strip():
            texts.setdefault(hashlib.sha256(text.encode()).hexdigest(), text)
    return list(texts.values())


def train_tokenizer(texts: list[str], folder: Path) -> Tokenizer:
    """Train a byte-level BPE tokenizer on the texts and save it for AutoTokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, PAD, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": WINDOW,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    """Join the texts into one stream of token ids, each text between <s> and </s>."""
    ids = [token for item in tokenizer.encode_batch(texts) for token in [*item.ids, 2]]
    return torch.tensor(ids)


def batches(ids: torch.Tensor, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield batches without end; each pass cuts the stream at a new offset and shuffles it."""
    while True:
        offset = int(torch.randint(WINDOW, (1,), generator=generator))
        count = (len(ids) - offset) // WINDOW
        rows = ids[offset : offset + count * WINDOW].view(count, WINDOW)
        order = torch.randperm(count, generator=generator)
        for picked in order[: count // BATCH * BATCH].view(-1, BATCH):
            yield rows[picked]


@torch.inference_mode()
def mean_loss(model: OPTForCausalLM, ids: torch.Tensor) -> float:
    """Return the mean loss per token over adjacent windows, without their first tokens."""
    model.eval()
    end = len(ids) // WINDOW * WINDOW
    groups = [*ids[:end].view(-1, WINDOW).split(16), ids[None, end:]]
    total, scored = 0.0, 0
    for group in groups:
        if terms := group.shape[0] * max(group.shape[1] - 1, 0):
            loss = model(input_ids=group, labels=group, use_cache=False).loss
            total, scored = total + loss.item() * terms, scored + terms
    model.train()
    return total / scored


def build_model() -> OPTForCausalLM:
    """Return the untrained model."""
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            word_embed_proj_dim=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            ffn_dim=512,
            max_position_embeddings=WINDOW,
            dropout=0.0,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
        )
    )


def train(
    model: OPTForCausalLM, ids: torch.Tensor, held_out: torch.Tensor, steps: int, seed: int
) -> list[dict[str, float]]:
    """Train the model in place; return the rows of the loss curve."""
    decayed = {name for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name}
    matrices = [p for name, p in model.named_parameters() if name in decayed]
    others = [p for name, p in model.named_parameters() if name not in decayed]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=True)
    warmup = max(steps // 20, 1)

    def schedule(step: int) -> float:
        progress = (step - warmup) / max(steps - warmup, 1)
        return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * max(progress, 0.0))))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    source = batches(ids, torch.Generator().manual_seed(seed))
    rows: list[dict[str, float]] = []
    losses: list[float] = []
    model.train()
    for step in range(1, steps + 1):
        batch = next(source)
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % max(steps // 25, 1) == 0 or step == steps:
            row: dict[str, float] = {"step": step, "tokens": step * batch.numel()}
            row["train_loss"] = round(sum(losses) / len(losses), 4)
            row["validation_loss"] = round(mean_loss(model, held_out), 4)
            rows.append(row)
            losses.clear()
            print(row, flush=True)
    return rows


def write_curve(rows: list[dict[str, float]], folder: Path) -> None:
    """Write the loss curve as a table and as a chart."""
    with (folder / "loss.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    points = [
        {"tokens": row["tokens"] / 1e6, "loss": row[f"{kind}_loss"], "split": kind}
        for kind in ("train", "validation")
        for row in rows
    ]
    colors = {"range": ["#8a9099", "#1f5fbf"]}
    title = {"x": "training tokens (millions)", "y": "loss per token (nats)"}
    chart = {
        "data": {"values": points},
        "width": 480,
        "height": 260,
        "mark": {"type": "line", "point": {"size": 18}},
        "encoding": {
            "x": {"field": "tokens", "type": "quantitative", "title": title["x"]},
            "y": {
                "field": "loss", "type": "quantitative", "title": title["y"],
                "scale": {"zero": False},
            },
            "color": {"field": "split", "type": "nominal", "title": None, "scale": colors},
        },
        "config": {"view": {"stroke": None}},
    }  # fmt: skip
    (folder / "loss.svg").write_text(vl_convert.vegalite_to_svg(chart), encoding="utf-8")


CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags:
- opt
- sparsity-report
---

# The demo model of sparsity-report

A trained OPT language model of {parameters:,} parameters. It ships with the package, so that
you can try sparsity-report without a download. It reproduces only the surface of Python source:
do not use it to generate code.

## Architecture

`OPTForCausalLM`: {layers} layers, hidden size {hidden}, {heads} attention heads, feed-forward
size {ffn}, ReLU, layer norm before each block, at most {window} positions, float32. The output
head shares the token embedding.

| part | parameters |
|---|---|
| token embedding | {vocabulary:,} x {hidden} = {embedding:,} |
| position embedding | ({window} + 2) x {hidden} = {position:,} |
| layers | {layers} x {layer:,} = {all_layers:,} |
| final layer norm | 2 x {hidden} = {norm:,} |
| total | {embedding:,} + {position:,} + {all_layers:,} + {norm:,} = {parameters:,} |

## Data

The data are the standard library of CPython {python}, distributed under the [PSF
licence](https://docs.python.org/3/license.html), without its tests, `idlelib`, `lib2to3`,
`turtledemo`, `encodings`, `pydoc_data` and exact duplicates. Every {every}th file of the
sorted list is held out. The byte-level BPE tokenizer has {vocabulary:,} entries and was
trained on the training files only; it puts `<s>` before a text.

| split | files | bytes | tokens |
|---|---|---|---|
| training | {train_files:,} | {train_bytes:,} | {train_tokens:,} |
| validation | {valid_files:,} | {valid_bytes:,} | {valid_tokens:,} |
| `eval.txt` | 1 | {eval_bytes:,} | {eval_tokens:,} |

[eval.txt](eval.txt) was written for this package and is in neither split.
[calibration.txt](calibration.txt) is in neither split, either. It is the default calibration set of
`sr.calibrate` and contains five modules of this package as of November 2026.

## Training

Training ran for {steps:,} steps of {batch} x {window} = {step_tokens:,} tokens, {seen:,}
tokens in all ({passes:.2f} passes). The optimizer was AdamW with peak learning rate {rate},
betas {betas} and weight decay {decay} on the matrices of the layers only. The learning rate
rose linearly over the first twentieth of the steps and decayed to zero as a cosine. The
gradient norm was clipped at {clip}; there was no dropout; the seed was {seed}. Training took
{seconds:,.0f} seconds on {threads} CPU threads, validation included, with torch {torch} and
transformers {transformers}. The script is `docs/tools/train_demo.py` in the source.

## Results

| measure | value |
|---|---|
| training loss, mean of the last {last_steps:,} steps | {train_loss:.4f} |
| validation loss | {valid_loss:.4f} |
| validation perplexity | {valid_perplexity:.3f} |
| `eval.txt` loss | {eval_loss:.4f} |
| `eval.txt` perplexity | {eval_perplexity:.3f} |

Losses are in nats per token. Perplexity is exp(loss) over windows of {window} tokens with stride
{window}; the first token of each window is not scored. The curve is in [loss.csv](loss.csv).

![Loss curve](loss.svg)
"""


def count(part: torch.nn.Module) -> int:
    """Return the number of distinct parameters in a module."""
    return sum(p.numel() for p in part.parameters())


def main() -> None:
    """Read the data, train, save, reload, measure and write the card."""
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--out", type=Path, default=DEMO, help="folder to write to")
    parser.add_argument("--steps", type=int, default=4200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)

    texts = read_sources()
    held_out = texts[::VALIDATION_EVERY]
    training = [text for number, text in enumerate(texts) if number % VALIDATION_EVERY]
    tokenizer = train_tokenizer(training, out)
    ids, held_out_ids = encode(tokenizer, training), encode(tokenizer, held_out)

    model = build_model()
    start = time.perf_counter()
    rows = train(model, ids, held_out_ids, args.steps, args.seed)
    seconds = time.perf_counter() - start
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    write_curve(rows, out)

    saved = AutoModelForCausalLM.from_pretrained(out)
    eval_text = (DEMO / "eval.txt").read_text(encoding="utf-8")
    (out / "eval.txt").write_text(eval_text, encoding="utf-8")
    eval_ids = AutoTokenizer.from_pretrained(out)(eval_text, return_tensors="pt").input_ids[0]
    eval_loss, valid_loss = mean_loss(saved, eval_ids), mean_loss(saved, held_out_ids)
    decoder, config, last = saved.model.decoder, saved.config, rows[-1]
    card = CARD.format(
        parameters=count(saved),
        embedding=count(decoder.embed_tokens),
        position=count(decoder.embed_positions),
        layer=count(decoder.layers[0]),
        all_layers=count(decoder.layers),
        norm=count(decoder.final_layer_norm),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        ffn=config.ffn_dim,
        window=WINDOW,
        vocabulary=config.vocab_size,
        python=platform.python_version(),
        every=VALIDATION_EVERY,
        train_files=len(training),
        train_bytes=sum(len(text.encode()) for text in training),
        train_tokens=len(ids),
        valid_files=len(held_out),
        valid_bytes=sum(len(text.encode()) for text in held_out),
        valid_tokens=len(held_out_ids),
        eval_bytes=len(eval_text.encode()),
        eval_tokens=len(eval_ids),
        steps=args.steps,
        batch=BATCH,
        step_tokens=BATCH * WINDOW,
        seen=last["tokens"],
        passes=last["tokens"] / len(ids),
        rate=LEARNING_RATE,
        betas=BETAS,
        decay=WEIGHT_DECAY,
        clip=CLIP,
        seed=args.seed,
        seconds=seconds,
        threads=args.threads,
        torch=torch.__version__,
        transformers=transformers.__version__,
        last_steps=last["step"] - (rows[-2]["step"] if len(rows) > 1 else 0),
        train_loss=last["train_loss"],
        valid_loss=valid_loss,
        valid_perplexity=math.exp(valid_loss),
        eval_loss=eval_loss,
        eval_perplexity=math.exp(eval_loss),
    )
    (out / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
