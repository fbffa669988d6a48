"""From ``config.json`` to a model on the meta device: its structure, without memory for weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.plain import plain_folder, read_config_file


def read_config(directory: Path) -> tuple[nn.Module | None, tuple[str, ...]]:
    """Build the model of ``config.json``; None and a note where it cannot be known."""
    path = directory / "config.json"
    if not path.is_file():
        return None, ("no config.json: groups follow from tensor names and shapes alone",)
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        known = read_config_file(path)
        kind = known["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SparsityReportError(f"{path} is not a transformers config: {error!r}") from error
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return None, (
            f"transformers does not know model type {kind!r}: "
            "groups follow from tensor names and shapes alone",
        )
    try:
        with plain_folder(directory, ["config.json"]) as plain:
            config = AutoConfig.from_pretrained(
                plain, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # each config class validates in its own way
        raise SparsityReportError(f"{path}: {first_line(error)}") from error
    config.name_or_path = str(directory)
    return meta_model(config, path), ()


def meta_model(config: Any, where: Path) -> nn.Module:
    """Build a transformers config on the meta device, or say why it cannot be built.

    The first of the config's ``architectures`` that transformers has is built, else the model
    type's causal or encoder-decoder LM, else its base model; in the dtype that it promises.
    """
    try:
        with torch.device("meta"):
            model = _built(config)
            return model.to(config.dtype) if config.dtype else model
    except Exception as error:  # a hostile config can fail anywhere inside transformers
        raise SparsityReportError(
            f"{where}: no model can be built from this config: {first_line(error)}"
        ) from error


def _built(config: Any) -> nn.Module:
    import transformers

    for name in config.architectures or ():
        architecture = getattr(transformers, name, None)
        if isinstance(architecture, type) and issubclass(
            architecture, transformers.PreTrainedModel
        ):
            return cast(nn.Module, architecture(config))
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM):
        if type(config) in auto._model_mapping:
            return cast(nn.Module, auto.from_config(config))
    return cast(nn.Module, transformers.AutoModel.from_config(config))


def first_line(error: BaseException) -> str:
    """Return what an error of a library says first, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
