"""Sample inputs for a model, derived from its config and the signature of its forward."""

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

# Forward arguments for a sequence length.
Sample = Callable[[int], dict[str, torch.Tensor]]
# Shape of a text, None for its length.
_Shape = Sequence[int | None]

_CODEBOOKS = ("num_codebooks", "num_channels")
_OTHERS = ("pixel_values", "input_values", "input_features", "inputs", "flattened_patches")
# Default spectrogram frames, audio samples, and pixels per side.
_FRAMES = (3000, 512, 64)
_SAMPLES = 16_000
_SIDE = 224
_CHANNELS = ("num_channels", "in_channels", "num_input_channels", "in_chans")
_FEATURES = (
    "num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim", "n_mels",
)  # fmt: skip


def samples(model: nn.Module) -> Iterator[tuple[bool, Sample]]:
    """Yield inputs that a model may accept, plain text first.

    Yields
    ------
    bool
        Whether the input is text of any length.
    Sample
    """
    config, takes = getattr(model, "config", None), inspect.signature(model.forward).parameters
    others = [dict([other]) for name in _OTHERS if name in takes for other in _other(config, name)]
    for besides in ({}, *others):
        for names in _texts(config, takes):
            for shape in _shapes(config):
                yield True, partial(_read, config, names, shape, besides)
    for besides in others:
        yield False, partial(_read, config, (), (), besides)


def _texts(config: Any, takes: Collection[str]) -> Iterator[tuple[str, ...]]:
    """Yield the names of text arguments, also in combinations."""
    names = tuple(name for name in ("input_ids", "decoder_input_ids", "bbox") if name in takes)
    first = 1 + (getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in takes)
    if names:
        yield names[:first]
        yield names
        yield names[1:first] or names


def numbers(config: Any, wanted: Callable[[str], object]) -> Iterator[int]:
    """Yield the integers that a config or a nested config has under some names."""
    settings = config.to_dict() if hasattr(config, "to_dict") else config
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if isinstance(value, list | tuple) and value and wanted(str(name)):
            value = value[-1]
        if isinstance(value, dict):
            yield from numbers(value, wanted)
        elif isinstance(value, int) and not isinstance(value, bool) and wanted(str(name)):
            yield value


def _read(
    config: Any, names: Sequence[str], shape: _Shape, besides: dict[str, torch.Tensor], length: int
) -> dict[str, torch.Tensor]:
    """Return texts of plain tokens with the model's end token, and the other inputs."""
    special = set(numbers(config, lambda name: name.endswith(("token_id", "token_index"))))
    plain = next(number for number in range(len(special) + 1) if number not in special)
    given = dict(besides)
    for name in names:
        given[name] = torch.full((1, length), plain)
        if name == "bbox":  # position of each token on a page
            given[name] = torch.zeros(1, length, 4)
            continue
        if isinstance(end := getattr(config, "eos_token_id", None), int) and end >= 0:
            given[name][:, -1] = end
    if names and shape:
        # Sound as text: the last is of several codes at a time.
        sizes = [length if size is None else size for size in shape]
        given[names[-1]] = torch.full(sizes, plain)
    return given


def _shapes(config: Any) -> Iterator[_Shape]:
    """Yield shapes of texts: one token or several codes per position."""
    yield ()
    for codes in sorted(set(numbers(config, _CODEBOOKS.__contains__))):
        yield from ((codes, None), (1, None, codes), (1, None, codes + 1))


def _other(config: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield inputs other than text: images, audio, spectrograms."""
    if name == "pixel_values":
        side = next(numbers(config, "image_size".__eq__), _SIDE)
        channels = next(numbers(config, _CHANNELS.__contains__), 3)
        yield name, torch.empty(1, channels, side, side, device="meta")
        yield name, torch.empty(1, 1, channels, side, side, device="meta")
    elif name == "flattened_patches":  # row, column and pixels of each patch
        width = next(numbers(config, "patch_embed_hidden_size".__eq__), 768)
        yield name, torch.zeros(1, 1, 1).expand(1, 64, width + 2)
    elif name in {"input_values", "inputs"}:
        yield name, torch.empty(1, _SAMPLES, device="meta")
    else:
        features = next(numbers(config, _FEATURES.__contains__), 80)
        positions = [2 * n for n in numbers(config, "max_source_positions".__eq__)]
        for frames in (*positions, *_FRAMES):
            yield name, torch.empty(1, frames, features, device="meta")
            yield name, torch.empty(1, features, frames, device="meta")
