"""From ``config.json`` to a model on the meta device: its structure, without memory for weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError


def read_config(directory: Path) -> tuple[nn.Module | None, tuple[str, ...]]:
    """Build the meta model of ``config.json``; None and a note where it cannot be known."""
    path = directory / "config.json"
    if not path.is_file():
        return None, ("no config.json: groups follow from tensor names and shapes alone",)
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        kind = known["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SparsityReportError(f"{path} is not a transformers config: {error!r}") from error
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return None, (
            f"transformers does not know model type {kind!r}: "
            "groups follow from tensor names and shapes alone",
        )
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # each config class validates in its own way
        raise SparsityReportError(f"{path}: {_first_line(error)}") from error
    return skeleton_of(config, path), ()


def skeleton_of(config: Any, where: Path) -> nn.Module:
    """Build a config on the meta device or say why it cannot be built."""
    try:
        return meta_model(config, config.architectures or ())
    except Exception as error:  # a hostile config can fail anywhere inside transformers
        raise SparsityReportError(
            f"{where}: no model can be built from this config: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def meta_model(config: Any, classes: Sequence[str]) -> nn.Module:
    """Build a model from a transformers config without memory for its weights.

    Parameters
    ----------
    config : transformers.PretrainedConfig
    classes : sequence of str
        The config's ``architectures``; the first that transformers has is built, else the
        model type's causal or encoder-decoder LM, else its base model.
    """
    import transformers

    with torch.device("meta"):
        for name in classes:
            found = getattr(transformers, name, None)
            if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
                return cast(nn.Module, found(config))
        for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM):
            if type(config) in auto._model_mapping:
                return cast(nn.Module, auto.from_config(config))
        return cast(nn.Module, transformers.AutoModel.from_config(config))
