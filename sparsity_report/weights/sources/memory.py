"""Weights of an ``nn.Module`` in memory."""

import json
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import prune

from sparsity_report.weights.anatomy.describe import describe
from sparsity_report.weights.anatomy.names_only import ReaderOptions
from sparsity_report.weights.anatomy.parameter_places import copied, locate, value, walk
from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.tensor_slices import Slice
from sparsity_report.weights.torch_tensors import is_shard, tensor_slices, to_array
from sparsity_report.weights.weights import Weights, float8_notes

_DEFAULT = ReaderOptions()


class ModuleWeights(Weights):
    """A view of a live model; its values are read when they are first counted."""

    def __init__(self, model: nn.Module, options: ReaderOptions = _DEFAULT) -> None:
        config = getattr(model, "config", None)
        path = getattr(config, "_name_or_path", "")
        places = walk(model)
        description = describe(places, options)
        kind, modules = type(model).__name__, description.modules
        name, widths = options.name or path or kind, description.attention_widths
        notes = float8_notes(modules) + description.notes
        super().__init__(name, "module", kind, modules, widths, notes)
        self._model = model
        self._places = locate(places)

    def tensor(self, name: str) -> torch.Tensor:
        """Return the live tensor with its pruning mask applied."""
        if name not in self._places:
            raise self.wrong(f"has no parameter named {name!r}; see weights.parameters")
        tensor = value(*self._places[name])
        if tensor.is_meta:
            raise self.wrong(f"has no values of {name}, which is on the meta device; load them")
        if is_shard(tensor):
            raise self.wrong(f"has only a shard of {name} in this process; load a saved checkpoint")
        return tensor

    def array(self, name: str) -> Array:
        """Return the values of the live tensor on the CPU."""
        return to_array(self.tensor(name))

    def slices(self, name: str) -> Iterator[Slice]:
        """Yield the values of the live tensor, moved to the CPU when they are read."""
        return tensor_slices(self.tensor(name))

    def buffers(self) -> dict[str, Array]:
        """Return the buffers that torch saves, pruning masks left out."""
        saved = self._model.state_dict(keep_vars=True)
        masks = {f"{name[:-5]}_mask" for name in saved if name.endswith("_orig")}
        known = dict(self._model.named_buffers()).keys() - masks
        return {name: to_array(saved[name]) for name in saved if name in known}

    def configuration(self) -> dict[str, Any]:
        """Return the configuration of a transformers model."""
        return settings_of(self._model)

    def module(self) -> nn.Module:
        """Return a deep copy of the model with its pruning masks made permanent.

        A model with float8 weights, for which torch has no products, is copied to float32.
        """
        model = copied(self._model)
        for module in model.modules():
            for leaf in [name.removesuffix("_mask") for name in module._buffers]:
                if (original := module._parameters.get(f"{leaf}_orig")) is not None:
                    # Parameters tied to it have no mask.
                    alone = nn.Parameter(original.detach().clone(), original.requires_grad)
                    module._parameters[f"{leaf}_orig"] = alone
                    prune.remove(module, leaf)
        return model.float() if float8_notes(self.modules) else model


def settings_of(model: nn.Module) -> dict[str, Any]:
    """Return the ``config.json`` of a transformers model, empty for other modules."""
    config = getattr(model, "config", None)
    if not hasattr(config, "to_json_string"):
        return {}
    settings = json.loads(cast(Any, config).to_json_string())
    return {**settings, "architectures": [type(model).__name__]}
