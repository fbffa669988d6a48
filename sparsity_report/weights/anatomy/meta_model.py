"""Models on the meta device built from ``config.json``: structure without weights."""

import os
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sparsity_report.errors import explained
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.untrusted import limits
from sparsity_report.weights.anatomy.config_limits import building, check_config
from sparsity_report.weights.sources.data_files import plain_folder, read_config_file

# Tasks to try if the config names no class.
_OTHERS = (
    "PreTraining", "MaskedLM", "ImageTextToText", "SpeechSeq2Seq", "SequenceClassification",
    "TokenClassification",
)  # fmt: skip


def read_config(
    directory: Path, fits: Callable[[nn.Module], bool] | None = None, most: int = limits.PARAMETERS
) -> tuple[nn.Module | None, tuple[Phrase, ...]]:
    """Return the model of ``config.json``, or None and a note for an unknown one.

    `fits` and `most` are those of :func:`meta_model`.
    """
    path = directory / "config.json"
    if not os.path.lexists(path):
        return None, (phrase("note.no_config"),)
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    with explained(lambda error: f"{path} is not a transformers config: {error!r}"):
        known = read_config_file(path)
        kind = known["model_type"]
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return None, (phrase("note.unknown_model_type", kind=repr(kind)),)
    check_config(known, path)
    # Each config class validates in its own way.
    with (
        explained(lambda error: f"{path}: {first_line(error)}", Exception),
        plain_folder(directory, ["config.json"]) as plain,
    ):
        config = AutoConfig.from_pretrained(plain, local_files_only=True, trust_remote_code=False)
    config.name_or_path = str(directory)
    return meta_model(config, path, fits, most), ()


def meta_model(
    config: Any,
    where: Path,
    fits: Callable[[nn.Module], bool] | None = None,
    most: int = limits.PARAMETERS,
) -> nn.Module:
    """Return the model of a config on the meta device, or the reason why it cannot be built.

    The first known class of the config's ``architectures`` is built in the declared dtype. Without
    one, the classes of the model type are tried: its causal or encoder-decoder LM, then its base
    model and others. The first that `fits` is taken, else the very first. A model of more than
    `most` parameters is not built.
    """
    # A hostile config can fail anywhere inside transformers.
    with explained(
        lambda error: f"{where}: no model can be built from this config: {first_line(error)}",
        Exception,
    ):
        named = _named(config, most)
        return _fitting(config, fits, most) if named is None else named


def _named(config: Any, most: int) -> nn.Module | None:
    import transformers

    for name in config.architectures or ():
        architecture = getattr(transformers, name, None)
        if isinstance(architecture, type) and issubclass(
            architecture, transformers.PreTrainedModel
        ):
            return _on_meta(architecture, config, most)
    return None


def _fitting(config: Any, fits: Callable[[nn.Module], bool] | None, most: int) -> nn.Module:
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


def _on_meta(build: Callable[[Any], Any], config: Any, most: int) -> nn.Module:
    with torch.device("meta"), building(most):
        model = build(config)
        model.tie_weights(recompute_mapping=False)  # transformers 5.0 does not on this device
    return cast(nn.Module, model.to(config.dtype) if config.dtype else model)


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, or its type."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    # "… for validator 'validate_architecture':" precedes the reason.
    return f"{first} {more[0].strip()}" if more and first.endswith(":") else first
