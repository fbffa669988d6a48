"""What the forward of a model takes: plain tokens, a picture, a wave, or features of one."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from zoo.shrink import VOCABULARY


def inputs(model: PreTrainedModel, length: int) -> dict[str, Any]:
    """Return what a model reads, with `length` plain tokens where it reads text."""
    config, takes = model.config, inspect.signature(model.forward).parameters
    if special := SPECIAL.get(type(model).__name__):
        return special(config, length)
    given = {name: read(config) for name, read in BESIDES.items() if _needs(model, name, takes)}
    if "input_ids" in takes:
        given["input_ids"] = tokens(config, length)
    if "decoder_input_ids" in takes and config.is_encoder_decoder:
        given["decoder_input_ids"] = tokens(config, length)
    return given


def tokens(config: PreTrainedConfig, length: int, rows: int = 1) -> torch.Tensor:
    """Return ids of tokens that have no special meaning."""
    vocabulary = getattr(config.get_text_config(decoder=True), "vocab_size", None) or VOCABULARY
    vocabulary = min(vocabulary, VOCABULARY)
    first = vocabulary // 2
    return (first + torch.arange(rows * length) * 7 % (vocabulary - first)).reshape(rows, length)


def picture(config: PreTrainedConfig) -> torch.Tensor:
    """Return pixels of one picture."""
    vision = getattr(config, "vision_config", None) or getattr(config, "encoder", None) or config
    side = getattr(vision, "image_size", 32)
    side = side if isinstance(side, int) else side[0]
    return _values(1, getattr(vision, "num_channels", 3), side, side)


def wave(config: PreTrainedConfig) -> torch.Tensor:  # noqa: ARG001
    """Return samples of sound."""
    return _values(1, 6400)


def features(config: PreTrainedConfig) -> torch.Tensor:
    """Return 64 steps of a spectrogram."""
    parts = (config, *(getattr(config, name, None) for name in ("encoder_config", "audio_config")))
    names = ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim")
    sizes = (getattr(part, name, None) for name in names for part in parts)
    return _values(1, 64, next(size for size in sizes if size))


def _values(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.5


def _needs(model: PreTrainedModel, name: str, takes: Any) -> bool:
    needed = name in takes and takes[name].default is inspect.Parameter.empty
    return needed or (name == model.main_input_name and name in takes)


BESIDES = {"pixel_values": picture, "input_values": wave, "input_features": features}


def _codes(config: PreTrainedConfig, length: int) -> dict[str, Any]:
    decoder = getattr(config, "decoder", config)
    return {"input_ids": tokens(decoder, length, decoder.num_codebooks)}


def _written_music(config: PreTrainedConfig, length: int) -> dict[str, Any]:
    codes = _codes(config, length)["input_ids"]
    return {"input_ids": tokens(config.text_encoder, length), "decoder_input_ids": codes}


def _whisper(config: PreTrainedConfig, length: int) -> dict[str, Any]:
    heard = _values(1, config.num_mel_bins, 2 * config.max_source_positions)
    return {"input_features": heard, "decoder_input_ids": tokens(config, length)}


def _ended(config: PreTrainedConfig, length: int) -> dict[str, Any]:
    ids = tokens(config, length)
    ids[0, -1] = config.eos_token_id
    return {"input_ids": ids}


def _query_former(config: PreTrainedConfig, length: int) -> dict[str, Any]:
    ids = tokens(config, length)
    ids[0, : config.num_query_tokens] = config.image_token_index
    return {"pixel_values": picture(config), "input_ids": ids}


def _both(config: PreTrainedConfig, length: int, **more: Any) -> dict[str, Any]:
    ids = tokens(config, length)
    return {"input_ids": ids, "decoder_input_ids": ids, **more}


SPECIAL = {
    "MusicgenForCausalLM": _codes,
    "MusicgenMelodyForCausalLM": _codes,
    "MusicgenForConditionalGeneration": _written_music,
    "MusicgenMelodyForConditionalGeneration": _written_music,
    "WhisperForConditionalGeneration": _whisper,
    "WhisperForAudioClassification": lambda config, length: {
        "input_features": _whisper(config, length)["input_features"]
    },
    "BartForSequenceClassification": _ended,
    "BltForCausalLM": lambda config, length: {
        "input_ids": tokens(config, length), "use_cache": False,
    },
    "Blip2ForConditionalGeneration": _query_former,
    "InstructBlipForConditionalGeneration": lambda config, length: {
        **_query_former(config, length), "qformer_input_ids": tokens(config, 4),
    },
    "InstructBlipVideoForConditionalGeneration": lambda config, length: {
        **_query_former(config, length), "qformer_input_ids": tokens(config, 4),
        "pixel_values": picture(config)[None].expand(1, 4, -1, -1, -1),
    },
    "UdopForConditionalGeneration": lambda config, length: _both(
        config, length, bbox=torch.zeros(1, length, 4)
    ),
    "Pix2StructForConditionalGeneration": lambda config, length: {
        "flattened_patches": _values(1, 4, config.vision_config.patch_embed_hidden_size + 2),
        "decoder_input_ids": tokens(config, length),
    },
    "Kosmos2ForConditionalGeneration": lambda config, length: {
        "pixel_values": picture(config), "input_ids": tokens(config, length),
        "image_embeds_position_mask": torch.arange(length)[None] < config.latent_query_num,
    },
    "DiaForConditionalGeneration": lambda config, length: {
        "input_ids": tokens(config, length),
        "decoder_input_ids": tokens(config, length, 9).reshape(1, length, 9),
    },
    "VisionEncoderDecoderModel": lambda config, length: {
        "pixel_values": picture(config), "decoder_input_ids": tokens(config, length),
    },
    "SpeechEncoderDecoderModel": lambda config, length: {
        "inputs": wave(config), "decoder_input_ids": tokens(config, length),
    },
    "IdeficsForVisionText2Text": lambda config, length: {
        "input_ids": tokens(config, length), "pixel_values": picture(config)[None],
        "image_attention_mask": torch.ones(1, length, 1),
    },
    "ASTForAudioClassification": lambda config, _: {
        "input_values": _values(1, config.max_length, config.num_mel_bins),
    },
    "SpeechT5ForTextToSpeech": lambda config, length: {
        "input_ids": tokens(config, length),
        "decoder_input_values": _values(1, length, config.num_mel_bins),
        "speaker_embeddings": _values(1, config.speaker_embedding_dim),
    },
    "Siglip2ForImageClassification": lambda config, _: {
        "pixel_values": _values(1, 4, 3 * config.vision_config.patch_size ** 2),
        "pixel_attention_mask": torch.ones(1, 4, dtype=torch.long),
        "spatial_shapes": torch.tensor([[2, 2]]),
    },
    "KyutaiSpeechToTextForConditionalGeneration": lambda config, length: {
        "input_ids": tokens(config, length, config.num_codebooks + 1).reshape(1, length, -1),
    },
    "FastSpeech2ConformerWithHifiGan": lambda config, length: {
        "input_ids": tokens(config.model_config, length),
    },
    "PerceiverForImageClassificationLearned": lambda config, _: {"inputs": picture(config)},
}  # fmt: skip
