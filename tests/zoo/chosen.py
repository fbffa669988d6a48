"""Sixty classes for each run of the tests, by what is hard about them."""

CHOSEN: dict[str, tuple[str, ...]] = {
    "experts as 3-D and 2-D parameters, lists, dictionaries; shared, zero and none": (
        "MixtralForCausalLM", "GptOssForCausalLM", "DbrxForCausalLM",
        "NllbMoeForConditionalGeneration", "SwitchTransformersForConditionalGeneration",
        "LongcatFlashForCausalLM", "InklingForCausalLM", "JetMoeForCausalLM", "Llama4ForCausalLM",
        "HunYuanMoEV1ForCausalLM",
    ),
    "once per token or once per sequence": (
        "BertForTokenClassification", "BertForSequenceClassification",
        "ModernBertForSequenceClassification", "ModernBertForTokenClassification",
        "LlamaForSequenceClassification", "BartForSequenceClassification",
        "XLNetForSequenceClassification",
    ),
    "recurrence and reuse": (
        "AlbertForMaskedLM", "HrmTextForCausalLM", "DoryForCausalLM",
        "ProphetNetForConditionalGeneration", "T5Gemma2ForConditionalGeneration",
        "FunnelForMaskedLM", "BltForCausalLM", "Gemma3nForCausalLM",
    ),
    "matrices without a Linear": (
        "XLNetLMHeadModel", "DeepseekV4ForCausalLM", "HYV4ForCausalLM",
        "Glm5NextForConditionalGeneration", "ZambaForCausalLM", "RecurrentGemmaForCausalLM",
    ),
    "heads, routers and gates": (
        "AfmoeForCausalLM", "ZayaForCausalLM", "MusicgenForCausalLM",
        "DiaForConditionalGeneration", "FSMTForConditionalGeneration", "KimiLinearForCausalLM",
        "Qwen3NextForCausalLM", "PerceiverForMaskedLM", "MobileBertForMaskedLM",
    ),
    "a folder that is not what memory holds": (
        "MarianMTModel", "GteForMaskedLM", "LaraMiniForCausalLM", "Molmo2ForConditionalGeneration",
    ),
    "hard to run as CSR": (
        "DeepseekV2ForCausalLM", "IBertForMaskedLM", "SpeechT5ForTextToSpeech",
        "SiglipForImageClassification", "GPT2LMHeadModel",
    ),
    "modules that a text token does not run": (
        "BartForCausalLM", "LlavaForConditionalGeneration", "LongformerForMaskedLM",
        "WhisperForConditionalGeneration",
    ),
    "context": ("DiffLlamaForCausalLM", "DeepseekV32ForCausalLM"),
    "states, hashes, convolutions; neither text nor tokens": (
        "Mamba2ForCausalLM", "RwkvForCausalLM", "ReformerModelWithLMHead", "Wav2Vec2ForCTC",
        "ViTForImageClassification",
    ),
}  # fmt: skip
NAMES = [name for names in CHOSEN.values() for name in names]
