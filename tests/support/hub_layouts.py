"""Layouts of the most downloaded models of the Hub: configurations, names and shapes of tensors.

Names are those in the files of the Hub, sizes are made small. A line is a name and its dimensions,
``{}`` stands for each layer and letters for the sizes of :data:`SIZES`. A name that ends in
``both`` stands for a weight and a bias of its first dimension.
"""

from dataclasses import dataclass, field
from typing import Any

SIZES = {
    "V": 64, "H": 32, "I": 48, "P": 16, "D": 8, "K": 16, "T": 2, "G": 96, "E": 12,
    "W": 128,
}  # fmt: skip
_BERT = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 16, "type_vocab_size": 2,
}  # fmt: skip
_DECODER = {
    **{key: value for key, value in _BERT.items() if "type" not in key},
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A model of the Hub.

    Attributes
    ----------
    config : dict
    tensors : str
    counted : str
        Class that is counted; by default the one that the configuration names.
    left_out : tuple of str
        Modules whose tensors the class lacks.
    """

    config: dict[str, Any]
    tensors: str
    counted: str = ""
    left_out: tuple[str, ...] = field(default=())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor by its name."""
        shapes = {}
        for line in filter(None, self.tensors.splitlines()):
            name, *letters = line.split()
            shape = tuple(SIZES[letter] if letter in SIZES else int(letter) for letter in letters)
            for layer in range(2 if "{}" in name else 1):
                for expert in range(SIZES["E"] if "<>" in name else 1):
                    full = name.replace("{}", str(layer)).replace("<>", str(expert))
                    shapes[full.replace(".both", ".weight")] = shape
                    if full.endswith(".both"):
                        shapes[full.replace(".both", ".bias")] = shape[:1]
        return shapes


def _named(kind: str, architecture: str | None, **config: Any) -> dict[str, Any]:
    named = {"architectures": [architecture]} if architecture else {}
    return {"model_type": kind, **named, **config}


def _bert(prefix: str, scale: str = "weight", shift: str = "bias", types: str = "T H") -> str:
    """Return the tensors of BERT's embeddings and layers."""
    layer, attention = f"{prefix}encoder.layer.{{}}", f"{prefix}encoder.layer.{{}}.attention"
    words = f"{prefix}embeddings"
    lines = [
        f"{words}.word_embeddings.weight V H", f"{words}.position_embeddings.weight P H",
        f"{words}.token_type_embeddings.weight {types}" if types else "",
        f"{layer}.intermediate.dense.both I H", f"{layer}.output.dense.both H I",
        f"{attention}.output.dense.both H H",
    ]  # fmt: skip
    lines += [f"{attention}.self.{side}.both H H" for side in ("query", "key", "value")]
    for norm in (words, f"{layer}.output", f"{attention}.output"):
        lines += [f"{norm}.LayerNorm.{scale} H", f"{norm}.LayerNorm.{shift} H"]
    return "\n".join(lines) + "\n"


def _llama(normed: bool = False, mlp: bool = True) -> str:
    """Return the tensors of a decoder with rotary positions."""
    attention = "model.layers.{}.self_attn"
    lines = ["model.embed_tokens.weight V H", "model.norm.weight H"]
    lines += [
        f"model.layers.{{}}.{norm}_layernorm.weight H" for norm in ("input", "post_attention")
    ]
    lines += [f"{attention}.q_proj.weight H H", f"{attention}.o_proj.weight H H"]
    lines += [f"{attention}.{side}_proj.weight K H" for side in "kv"]
    if normed:
        lines += [f"{attention}.{side}_norm.weight D" for side in "qk"]
    if mlp:
        lines += [f"model.layers.{{}}.mlp.{side}_proj.weight I H" for side in ("gate", "up")]
        lines += ["model.layers.{}.mlp.down_proj.weight H I"]
    return "\n".join(lines) + "\n"


_POOLER = "pooler.dense.weight H H\n{0}pooler.dense.bias H\n"
_ROBERTA = {**_BERT, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_ROBERTA_HEAD = """
lm_head.bias V
lm_head.dense.both H H
lm_head.layer_norm.both H
roberta.embeddings.position_ids 1 P
"""
_MPNET = """
embeddings.position_ids 1 P
embeddings.word_embeddings.weight V H
embeddings.position_embeddings.weight P H
embeddings.LayerNorm.both H
encoder.relative_attention_bias.weight 32 4
encoder.layer.{}.attention.attn.q.both H H
encoder.layer.{}.attention.attn.k.both H H
encoder.layer.{}.attention.attn.v.both H H
encoder.layer.{}.attention.attn.o.both H H
encoder.layer.{}.attention.LayerNorm.both H
encoder.layer.{}.intermediate.dense.both I H
encoder.layer.{}.output.dense.both H I
encoder.layer.{}.output.LayerNorm.both H
pooler.dense.both H H
"""
_GPT2 = """
wte.weight V H
wpe.weight P H
ln_f.both H
h.{}.ln_1.both H
h.{}.ln_2.both H
h.{}.attn.bias 1 1 P P
h.{}.attn.c_attn.weight H G
h.{}.attn.c_attn.bias G
h.{}.attn.c_proj.both H H
h.{}.mlp.c_fc.weight H W
h.{}.mlp.c_fc.bias W
h.{}.mlp.c_proj.weight W H
h.{}.mlp.c_proj.bias H
"""
_T5 = """
shared.weight V H
encoder.final_layer_norm.weight H
decoder.final_layer_norm.weight H
encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight 32 4
decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight 32 4
""" + "".join(
    f"{side}.block.{{}}.layer.{place}.{name}\n"
    for side, places in (("encoder", "01"), ("decoder", "012"))
    for place in places
    for name in (
        ["layer_norm.weight H"]
        + (
            ["DenseReluDense.wi.weight I H", "DenseReluDense.wo.weight H I"]
            if place == places[-1]
            else [
                f"{'SelfAttention' if place == '0' else 'EncDecAttention'}.{leaf}.weight H H"
                for leaf in "qkvo"
            ]
        )
    )
)
_DEBERTA = """
deberta.embeddings.word_embeddings.weight V H
deberta.embeddings.LayerNorm.both H
deberta.encoder.rel_embeddings.weight 16 H
deberta.encoder.LayerNorm.both H
deberta.encoder.layer.{}.attention.self.query_proj.both H H
deberta.encoder.layer.{}.attention.self.key_proj.both H H
deberta.encoder.layer.{}.attention.self.value_proj.both H H
deberta.encoder.layer.{}.attention.output.dense.both H H
deberta.encoder.layer.{}.attention.output.LayerNorm.both H
deberta.encoder.layer.{}.intermediate.dense.both I H
deberta.encoder.layer.{}.output.dense.both H I
deberta.encoder.layer.{}.output.LayerNorm.both H
lm_predictions.lm_head.bias V
lm_predictions.lm_head.dense.both H H
lm_predictions.lm_head.LayerNorm.both H
mask_predictions.dense.both H H
mask_predictions.LayerNorm.both H
mask_predictions.classifier.both 1 H
"""
_EXPERTS = """
model.layers.{}.block_sparse_moe.gate.weight E H
model.layers.{}.block_sparse_moe.experts.<>.w1.weight I H
model.layers.{}.block_sparse_moe.experts.<>.w2.weight H I
model.layers.{}.block_sparse_moe.experts.<>.w3.weight I H
lm_head.weight V H
"""
_HEAD = "lm_head.weight V H\n"
_BERT_HEADS = """
bert.pooler.dense.both H H
cls.predictions.bias V
cls.predictions.transform.dense.both H H
cls.predictions.transform.LayerNorm.gamma H
cls.predictions.transform.LayerNorm.beta H
cls.seq_relationship.both 2 H
"""
LAYOUTS = {
    "sentence-transformers/all-MiniLM-L6-v2": Layout(
        _named("bert", "BertModel", **_BERT),
        _bert("") + "embeddings.position_ids 1 P\n" + _POOLER.format(""),
    ),
    "google-bert/bert-base-uncased": Layout(
        _named("bert", "BertForMaskedLM", **_BERT),
        _bert("bert.", "gamma", "beta") + _BERT_HEADS,
        left_out=("bert.pooler", "cls.seq_relationship"),
    ),
    "sentence-transformers/all-mpnet-base-v2": Layout(
        _named("mpnet", "MPNetForMaskedLM", **{**_BERT, "relative_attention_num_buckets": 32}),
        _MPNET, "MPNetModel",
    ),
    "FacebookAI/roberta-base": Layout(
        _named("roberta", "RobertaForMaskedLM", **_ROBERTA),
        _bert("roberta.", types="1 H") + _ROBERTA_HEAD + "roberta." + _POOLER.format("roberta."),
        left_out=("roberta.pooler",),
    ),
    "openai-community/gpt2": Layout(
        _named("gpt2", "GPT2LMHeadModel", vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_ctx=16,
               n_positions=16, bos_token_id=0, eos_token_id=0),
        _GPT2,
    ),
    "Qwen/Qwen3-0.6B": Layout(
        _named("qwen3", "Qwen3ForCausalLM", **_DECODER, tie_word_embeddings=True),
        _llama(normed=True) + _HEAD,
    ),
    "meta-llama/Llama-2-7b-hf": Layout(
        _named("llama", "LlamaForCausalLM", **_DECODER, tie_word_embeddings=False),
        _llama() + _HEAD + "model.layers.{}.self_attn.rotary_emb.inv_freq 4\n",
    ),
    "google-t5/t5-small": Layout(
        _named("t5", "T5ForConditionalGeneration", vocab_size=64, d_model=32, d_ff=48, d_kv=8,
               num_heads=4, num_layers=2, relative_attention_num_buckets=32),
        _T5 + "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight 32 4\n",
        left_out=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias",),
    ),
    "microsoft/deberta-v3-base": Layout(
        _named("deberta-v2", None, **{**_BERT, "type_vocab_size": 0}, relative_attention=True,
               position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True,
               pos_att_type="p2c|c2p", position_biased_input=False, max_relative_positions=-1),
        _DEBERTA, "DebertaV2Model", ("lm_predictions", "mask_predictions"),
    ),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": Layout(
        _named("mixtral", "MixtralForCausalLM", **_DECODER, num_local_experts=12,
               num_experts_per_tok=2, tie_word_embeddings=False),
        _llama(mlp=False) + _EXPERTS,
    ),
}  # fmt: skip
