"""Every model class of the installed transformers, built tiny from the defaults of its config."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from zoo.exceptions import EXCEPTIONS, OF_MODEL
from zoo.shrink import tiny

MOST_PARAMETERS = 5_000_000

# What of transformers' tables of models is walked, and which types of config; all if None.
ENCODERS = (
    "albert", "bert", "big_bird", "deberta-v2", "distilbert", "electra", "funnel", "longformer",
    "modernbert", "mpnet", "roberta", "xlnet",
)  # fmt: skip
TABLES: dict[str, tuple[str, ...] | None] = {
    "CAUSAL_LM": None,
    "SEQ_TO_SEQ_CAUSAL_LM": None,
    "MASKED_LM": None,
    "IMAGE_TEXT_TO_TEXT": None,
    "SPEECH_SEQ_2_SEQ": None,
    "CTC": None,
    "TEXT_TO_WAVEFORM": None,
    "TEXT_TO_SPECTROGRAM": None,
    "SEQUENCE_CLASSIFICATION": (*ENCODERS, "bart", "gpt2", "llama"),
    "TOKEN_CLASSIFICATION": ENCODERS,
    "IMAGE_CLASSIFICATION": (
        "beit", "clip", "deit", "dinov2", "hiera", "ijepa", "levit", "mobilevit", "perceiver",
        "pvt", "segformer", "siglip", "siglip2", "swin", "vit", "vit_msn",
    ),
    "AUDIO_CLASSIFICATION": ("audio-spectrogram-transformer", "hubert", "wav2vec2", "whisper"),
}  # fmt: skip


@dataclass(frozen=True)
class Tiny:
    """A model class of transformers and the type of config it is built from."""

    name: str
    model_type: str
    table: str

    @cached_property
    def config(self) -> PreTrainedConfig:
        """A tiny config."""
        kind = getattr(transformers, self.name).config_class
        if kind is None:
            kind = CONFIG_MAPPING[self.model_type]
        given = EXCEPTIONS.get(f"{kind.__name__} full", {})
        config = tiny(kind(**given), EXCEPTIONS)
        for name, value in OF_MODEL.get(self.name, {}).items():
            setattr(config, name, value)
        return config

    def build(self) -> PreTrainedModel:
        """Build it, seeded, float32, on the CPU."""
        model_class = getattr(transformers, self.name)
        try:
            with torch.device("meta"):
                outline = model_class._from_config(self.config)
        except RuntimeError:  # not every model can be built without memory
            outline = torch.nn.Module()
        sizes = {name: p.numel() for name, p in outline.named_parameters()}
        if sum(sizes.values()) > MOST_PARAMETERS:
            largest = sorted(sizes, key=sizes.get)[-3:]
            raise ValueError(f"{sum(sizes.values())} parameters are too many: {largest}")
        torch.manual_seed(0)
        torch.use_deterministic_algorithms(True)  # what is never initialized is NaN
        try:
            model = model_class._from_config(self.config, dtype=torch.float32).eval()
        finally:
            torch.use_deterministic_algorithms(False)
        for parameter in model.parameters():
            # All zeros would hide what is wrong of a product.
            if parameter.isnan().any() or (parameter.ndim > 1 and not parameter.any()):
                torch.nn.init.normal_(parameter, std=0.02)
        return model


def walked() -> list[Tiny]:
    """Return every class that is walked once, in the order of transformers' tables."""
    classes: dict[str, Tiny] = {}
    for table, only in TABLES.items():
        names = getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES", {})
        for model_type, listed in names.items():
            if only is not None and model_type not in only:
                continue
            for name in (listed,) if isinstance(listed, str) else listed:
                classes.setdefault(name, Tiny(name, model_type, table))
    return list(classes.values())
