"""Models on the meta device built from ``config.json``: structure without weights, within limits.

Classes of configurations and models build lists as long as a number demands, so a hostile
configuration could keep a machine busy forever. Numbers are checked by their names if the class of
the configuration knows them. Under any name, building stops once a model has far more parameters
than the files have tensors.

Transformers may import a class, a kernel or a packer that a configuration names, from the folder
or from the Hub. It gets a temporary folder instead, which holds copies of data files and
configurations that name no code.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from threading import get_ident
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules import module as modules

from sparsity_report.errors import SparsityReportError, explained, first_line
from sparsity_report.files.filesystem import scratch
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_nesting, parse_json, read_json
from sparsity_report.weights.anatomy.config_sizes import check_sizes

_Test = Callable[[nn.Module], bool]
# Tasks to try if the config names no class.
_OTHERS = (
    "PreTraining", "MaskedLM", "ImageTextToText", "SpeechSeq2Seq", "SequenceClassification",
    "TokenClassification",
)  # fmt: skip
# Keys, at any depth, that name code or send transformers to other packages or files.
_CODE = {
    "auto_map", "attn_implementation", "_attn_implementation", "experts_implementation",
    "_experts_implementation", "quantization_config", "compression_config", "transformers_weights",
}  # fmt: skip
_CONFIGS = {"config.json", "tokenizer_config.json"}


def read_config(
    directory: Path, fits: _Test | None, most: int, settings: Mapping[str, Any] | None
) -> nn.Module:
    """Return the model of ``config.json``; refuse a type that transformers does not know.

    `fits` and `most` are those of :func:`meta_model`; `settings` replace the content of the file.
    """
    path = directory / "config.json"
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    with explained(lambda error: f"{path} is not a transformers config: {error!r}"):
        known = read_config_file(path, settings)
        kind = known.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise SparsityReportError(
            f"{path}: transformers {version('transformers')} does not know model type {kind!r}; "
            "take groups from tensor names and shapes (--by-names or config=False), or pass the "
            "nn.Module"
        )
    check_config(known, path)
    # Each config class validates in its own way.
    with explained(lambda error: f"{path}: {first_line(error)}", Exception), scratch() as plain:
        (plain / "config.json").write_text(json.dumps(known), encoding="utf-8")
        config = AutoConfig.from_pretrained(plain, local_files_only=True, trust_remote_code=False)
    config.name_or_path = str(directory)
    return meta_model(config, path, most, fits)


def meta_model(config: Any, where: Path, most: int, fits: _Test | None = None) -> nn.Module:
    """Return the model of a config on the meta device, or the reason why it cannot be built.

    The first known class of the config's ``architectures`` is built in the declared dtype. Without
    one, the classes of the model type are tried: its causal or encoder-decoder LM, then its base
    model and others. The first that `fits` is taken, else the very first. A model of more than
    `most` parameters is not built.
    """
    import transformers

    # A hostile config can fail anywhere inside transformers.
    failed = f"{where}: no model can be built from this config"
    with explained(lambda error: f"{failed}: {first_line(error)}", Exception):
        for name in config.architectures or ():
            known = getattr(transformers, name, None)
            if isinstance(known, type) and issubclass(known, transformers.PreTrainedModel):
                return _on_meta(known, config, most)
        return _fitting(config, fits, most)


def _fitting(config: Any, fits: _Test | None, most: int) -> nn.Module:
    import transformers

    language = ["Seq2SeqLM", "CausalLM"]
    if not config.is_encoder_decoder:
        language.reverse()
    kinds = [*(f"For{kind}" for kind in language), "", *(f"For{kind}" for kind in _OTHERS)]
    autos = [getattr(transformers, f"AutoModel{kind}") for kind in kinds]
    known = [auto for auto in autos if type(config) in auto._model_mapping]
    # The base model's error explains a failure. Models are built lazily.
    models = (_on_meta(a.from_config, config, most) for a in known or [transformers.AutoModel])
    first = next(models)
    return first if fits is None else next(filter(fits, chain([first], models)), first)


def without_head(model: nn.Module, most: int) -> nn.Module:
    """Return the model of the same config without a head, on the meta device."""
    import transformers

    config: Any = model.config
    where, give = config.name_or_path, "give the config.json of these weights"
    with explained(lambda error: f"{where}: {first_line(error)}; {give}", Exception):
        return _on_meta(transformers.AutoModel.from_config, config, most)


def _on_meta(build: Callable[[Any], Any], config: Any, most: int) -> nn.Module:
    with torch.device("meta"), building(most):
        model = build(config)
    return cast(nn.Module, model.to(config.dtype) if config.dtype else model)


def check_config(settings: Any, path: Path) -> None:
    """Refuse a configuration that announces sizes beyond :mod:`sparsity_report.untrusted.limits`.

    Raises
    ------
    SparsityReportError
        A size exceeds its limit.
    """
    with explained(lambda e: f"{path}: {e}, which no known model has; fetch it again"):
        check_sizes(settings, _known)


def _known(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = settings.get("model_type")
    return _defaults(kind) if isinstance(kind, str) else None


@lru_cache(maxsize=64)
def _defaults(kind: str) -> dict[str, Any] | None:
    """Return the defaults of a model type's configuration; None for an unknown type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    with suppress(Exception), without_logs():  # some cannot be made of nothing
        config = CONFIG_MAPPING[kind]()
        other_names = dict.fromkeys((*config.attribute_map, "num_labels"))
        return {**other_names, **config.to_dict()}
    return None


@contextmanager
def without_logs() -> Iterator[None]:
    """Drop the advice that transformers logs in this thread."""
    thread, handlers = get_ident(), logging.getLogger("transformers").handlers

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    for handler in handlers:
        handler.addFilter(is_of_others)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_of_others)


def read_config_file(path: Path, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a configuration, or settings in its place, without the keys that name code.

    Raises
    ------
    ValueError
        The file is nested too deep or no JSON object, see :mod:`sparsity_report.untrusted.gates`.
    OSError
        The file cannot be read.
    """
    if settings is None:
        config = read_json(path, most=limits.CONFIG_BYTES, without=_CODE)
    else:
        config = parse_json(json.dumps(settings), without=_CODE)
    check_nesting(config)
    return config


@contextmanager
def plain_folder(directory: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Return a temporary folder with copies of matching files of a folder, without code.

    Configurations other than those of the model and its tokenizer are left out, as are folders,
    links to devices and files larger than 128 MiB.
    """
    with scratch() as plain:
        for file in sorted({file for pattern in patterns for file in directory.glob(pattern)}):
            if not file.is_file() or file.stat().st_size > limits.TEXT_BYTES:
                continue
            if file.name in _CONFIGS:
                text = json.dumps(read_config_file(file))
                (plain / file.name).write_text(text, encoding="utf-8")
            elif not file.name.endswith("config.json"):
                shutil.copyfile(file, plain / file.name)
        yield plain


@contextmanager
def building(most: int) -> Iterator[None]:
    """Stop the building of a model beyond a number of parameters or parts.

    Raises
    ------
    ValueError
        The model exceeds the number.
    """
    thread, counts = get_ident(), {"parameters": 0, "modules": 0}

    def count(kind: str, holder: nn.Module) -> None:
        # The hooks are global: other threads may build modules too.
        if get_ident() == thread:
            counts[kind] += 1
            if counts[kind] > most:
                raise ValueError(
                    f"it has more than {most:,} {kind}, far more than the files have tensors, "
                    f"or any model; the last is in a {type(holder).__name__}"
                )

    with ExitStack() as stack:
        for kind, register in (
            ("parameters", modules.register_module_parameter_registration_hook),
            ("modules", modules.register_module_module_registration_hook),
        ):
            hook = register(lambda holder, *_, kind=kind: count(kind, holder))
            stack.callback(hook.remove)
        yield
