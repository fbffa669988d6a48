"""Model types whose caches follow from their configuration, held against transformers.

Run as a program, it writes ``cache_models.json``: for each model type other names and
defaults of settings, and the repeating pattern of its layers. A type gets an entry only if the
figures of :mod:`sparsity_report.weights.anatomy.cache_geometry` equal the bytes that transformers
allocates, for every probe: the default configuration and changed ones, completed and bare.
"""

import json
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto import configuration_auto, modeling_auto
from transformers.utils import logging

from sparsity_report.weights.anatomy import cache_geometry as geometry

FILE = Path(geometry.__file__).with_name("cache_models.json")
CONTEXT, BATCH = 40, 2
_MAPPINGS = {
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForImageTextToText": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
}
# Changes of a default configuration, each tried where its class knows all of the settings.
PROBES: tuple[dict[str, Any], ...] = (
    {},
    {"num_hidden_layers": 7},
    {"num_hidden_layers": 13, "sliding_window": 16},
    {
        "num_hidden_layers": 5,
        "sliding_window": 16,
        "use_sliding_window": True,
        "max_window_layers": 3,
    },
    {"num_hidden_layers": 6, "attention_chunk_size": 16},
    {"num_hidden_layers": 7, "num_key_value_heads": 2, "num_attention_heads": 8},
    {"num_hidden_layers": 7, "num_key_value_heads": 2},
    {"num_hidden_layers": 7, "head_dim": 32},
    {"num_kv_shared_layers": 3},
    {"num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2},
    {"num_hidden_layers": 4, "attn_layer_indices": [1, 3]},
)
_LENGTHS = (1, 2, 3, 5, 7, 12, 13, 24, 30, 47)
_KEYS = set(re.findall(r'"([a-zA-Z0-9_]+)"', Path(geometry.__file__).read_text("utf-8")))


def cached_bytes(cache: Any) -> int:
    """Return the bytes of every tensor of a cache of transformers."""
    sides = [getattr(cache, f"{side}_attention_cache", None) for side in ("self", "cross")]
    if any(sides):
        return sum(map(cached_bytes, sides))
    tensors: list[torch.Tensor] = []
    for layer in cache.layers:
        for name, value in vars(layer).items():
            several = value.values() if isinstance(value, dict) else [value]
            is_content = not name.startswith("_")
            tensors += [each for each in several if is_content and torch.is_tensor(each)]
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def run(model: Any, context: int, batch: int, device: str = "cpu") -> int:
    """Return the bytes that a model keeps after a text, and after a source as long."""
    ids = torch.ones(batch, context, dtype=torch.long, device=device)
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        output = model(input_ids=ids, use_cache=True, **more)
    return cached_bytes(output.cache if "cache" in output else output.past_key_values)


def of_model(model: Any) -> geometry.CacheGeometry:
    """Return the cache that the package derives for a model of transformers."""
    return geometry.cache_of(model, {n: (*p.shape,) for n, p in model.named_parameters()})


def figure(
    config: Mapping[str, Any] | geometry.CacheGeometry, context: int, batch: int, itemsize: int = 2
) -> Any:
    """Return the bytes that the package derives; the reason where it knows none."""
    known = (
        config if isinstance(config, geometry.CacheGeometry) else geometry.cache_geometry(config)
    )
    size = known.size((*geometry.GROWING, *geometry.STATES), context, batch, itemsize)
    return known.reason if size is None else size


def _text(config: Any) -> Any:
    """Return the configuration of the part that writes text, often the whole."""
    text = config.get_text_config(decoder=True)
    return config if text.model_type == config.model_type else text


def _entry(config: Any) -> dict[str, Any]:
    """Return other names, defaults and the pattern of a class of configurations."""
    kind = type(config)
    names = {value: key for key, value in kind.attribute_map.items()}
    defaults = {
        key: value
        for key in sorted(_KEYS)
        if isinstance(
            value := getattr(kind, kind.attribute_map.get(key, key), None), int | str | list
        )
        and key != "model_type"
    }
    entry = {"names": names, "defaults": defaults}
    if not hasattr(config, "layer_types"):
        return entry | {"pattern": None}
    kinds = {}
    for length in _LENGTHS:
        try:
            kinds[length] = [*kind(num_hidden_layers=length).layer_types]
        except Exception:  # classes check settings in many ways
            return entry
    for period in range(1, 13):
        pattern = kinds[47][:period]
        if all(each == [pattern[i % period] for i in range(n)] for n, each in kinds.items()):
            return entry | {"pattern": pattern}
    return entry


def _settled(kind: str, auto: str) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield the probe, the measured bytes, and those from a completed and from a bare config."""
    config_class = configuration_auto.CONFIG_MAPPING[kind]
    for probe in PROBES:
        config = config_class()
        text = _text(config)
        known = [key for key in probe if hasattr(text, key)]
        if len(known) < len(probe) or ("sliding_window" in probe and text.sliding_window is None):
            continue
        changes = {type(text).attribute_map.get(key, key): value for key, value in probe.items()}
        try:
            if text is config:
                config = config_class(**changes)
            else:
                config = config_class(text_config=type(text)(**changes))
            with torch.device("meta"):
                model = getattr(transformers, auto).from_config(config, attn_implementation="eager")
            measured = run(model.to(torch.bfloat16).eval(), CONTEXT, BATCH, "meta")
        except Exception as error:
            print("   skipped", probe, repr(error)[:80])
            continue
        inner = {"model_type": text.model_type, **changes}
        bare = {"model_type": kind, "text_config": inner} if text is not config else inner
        yield probe, measured, figure(of_model(model), CONTEXT, BATCH), figure(bare, CONTEXT, BATCH)


def _stop(*_: object) -> None:
    raise TimeoutError


def main(chosen: list[str]) -> None:
    """Write the entries of all model types, or those of chosen ones beside the others."""
    logging.set_verbosity(logging.CRITICAL)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _stop)
    models: dict[str, Any] = {}
    geometry._models = lambda: models
    for auto, mapping in _MAPPINGS.items():
        for kind in sorted(getattr(modeling_auto, mapping)):
            if kind in models or (chosen and kind not in chosen):
                continue
            added = {}
            signal.alarm(120)
            try:
                config = configuration_auto.CONFIG_MAPPING[kind]()
                text = _text(config)
                added[text.model_type] = _entry(text)
                if text is not config:
                    added[kind] = {"text": text.model_type}
                before = {name: models.get(name) for name in added}
                models |= {name: each for name, each in added.items() if name not in models}
                results = [*_settled(kind, auto)]
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                print(kind, "cannot run:", repr(error)[:100], flush=True)
                results = []
            finally:
                signal.alarm(0)
            bare = [r for r in results if r[1] != r[3]]
            wrong = [r for r in results if r[1] != r[2]] + [r for r in bare if type(r[3]) is int]
            if not results or wrong:
                for name, each in before.items():
                    if each is None:
                        models.pop(name, None)
                print(kind, "UNSETTLED", wrong[:2], flush=True)
            elif bare:
                print(kind, "only completed", bare[:2], added, flush=True)
            else:
                print(kind, len(results), "probes", flush=True)
    known = json.loads(FILE.read_text("utf-8")) if chosen and FILE.exists() else {}
    FILE.write_text(json.dumps(known | models, sort_keys=True, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
