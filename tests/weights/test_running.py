"""Uses of parameters traced without values: sizes, unchanged models, unknown counts."""

import copy
import io
import logging
import threading
import warnings

import pytest
import torch
import transformers as tf
from torch import nn
from torch.nn.modules import module as modules
from wording import count_of, of_key, values_of

import sparsity_report as sr
from sparsity_report.weights.anatomy.parameter_places import walk
from sparsity_report.weights.anatomy.parameter_uses import trace_uses

# Transformers advises on kernels that are not installed.
pytestmark = pytest.mark.filterwarnings("ignore")
SIZE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "vocab_size": 64,
}  # fmt: skip


def outline(config, architecture):
    with torch.device("meta"):
        return sr.load(getattr(tf, architecture)(config))


def totals(weights):
    return sr.compare(sr.dense(weights)).totals.loc[0]


def test_experts_that_do_no_work_are_expected_to_be_chosen():
    """Of 4 + 4 experts, four of which do nothing, two are chosen: one is expected to work."""
    config = tf.LongcatFlashConfig(
        hidden_size=32, num_layers=1, num_attention_heads=4, ffn_hidden_size=48, vocab_size=64,
        expert_ffn_hidden_size=24, n_routed_experts=4, zero_expert_num=4, moe_topk=2,
        q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
        num_key_value_heads=4, head_dim=8,
    )  # fmt: skip
    weights = outline(config, "LongcatFlashForCausalLM")
    assert not of_key(weights.notes, "note.uses_by_rule"), weights.notes
    layers = sr.dense(weights).layers()
    experts = layers[layers["module_name"].str.contains("experts")]
    assert experts["flops_per_token"].sum() == 2 * 3 * 32 * 24


def test_experts_that_run_on_every_token_are_noted():
    """Llama 4 scales what the experts get by zero where they are not chosen."""
    config = tf.Llama4TextConfig(
        **SIZE, num_key_value_heads=2, head_dim=8, intermediate_size_mlp=48, num_local_experts=4,
        num_experts_per_tok=1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    weights = sr.load(tf.Llama4ForCausalLM(config))
    (note,) = of_key(weights.notes, "note.experts_all_used")
    assert count_of(note, "note.experts_all_used", "experts") == 4
    mixtral = tf.MixtralConfig(**SIZE, num_key_value_heads=2, num_local_experts=4)
    assert not sr.load(tf.MixtralForCausalLM(mixtral)).notes
    # Matrices of groups of heads in one tensor are no experts.
    grouped = tf.DeepseekV4Config(
        **{k: v for k, v in SIZE.items() if k != "intermediate_size"}, head_dim=16, q_lora_rank=16,
        o_groups=2, o_lora_rank=8, qk_rope_head_dim=8, index_n_heads=2, index_head_dim=8,
        index_topk=4, num_experts_per_tok=2, n_routed_experts=4, moe_intermediate_size=16,
    )  # fmt: skip
    weights = sr.load(tf.DeepseekV4ForCausalLM(grouped))
    assert not weights.notes
    output = weights["model.layers.0.self_attn.o_a_proj.weight"]
    assert (output.experts, output.matrix) == (1, output.shape)


def test_modules_that_a_text_does_not_use_are_noted():
    vision = {k: v for k, v in SIZE.items() if k != "vocab_size"} | {
        "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**vision), text_config=tf.LlamaConfig(**SIZE),
        image_token_id=5,
    )  # fmt: skip
    weights = sr.load(tf.LlavaForConditionalGeneration(config))
    layers = sr.dense(weights).layers()
    seeing = layers["module_name"].str.contains("vision_tower|projector")
    matrices = layers["uses"].notna()
    assert (layers.loc[seeing & matrices, "flops_per_token"] == 0).all()
    in_tower = layers["module_name"].str.contains("vision_tower.*layers")
    assert layers.loc[in_tower & matrices, "prunable"].all()
    assert not layers.loc[seeing & ~in_tower, "prunable"].any()
    assert layers.loc[~seeing, "flops_per_token"].sum() == 2 * (
        2 * (4 * 32**2 + 3 * 32 * 48) + 64 * 32
    )
    (note,) = of_key(weights.notes, "note.unused_modules")
    assert count_of(note, "note.unused_modules", "modules") == (seeing & matrices).sum()


def test_a_model_is_not_changed_by_the_run():
    model = tf.MixtralForCausalLM(
        tf.MixtralConfig(**SIZE, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)
    )
    model.train()
    ran = []
    model.model.layers[0].register_forward_hook(lambda *_: ran.append(1))
    before = copy.deepcopy(model.state_dict())
    told = (model.config._attn_implementation, model.config._experts_implementation)
    attributes = {name: set(vars(m)) for name, m in model.named_modules()}
    trace_uses(walk(model))
    assert all(m.training for m in model.modules())
    assert told == (model.config._attn_implementation, model.config._experts_implementation)
    assert attributes == {name: set(vars(m)) for name, m in model.named_modules()}
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.device.type == "cpu" for p in model.parameters())


def test_a_traced_run_leaves_the_process_alone():
    """During a run, other threads find torch, warnings and logging as they were."""

    def state():
        hooks = (modules._global_forward_hooks, modules._global_forward_pre_hooks)
        verbosity = tf.utils.logging.get_verbosity()
        return (torch.is_autocast_enabled, [*warnings.filters], *map(dict, hooks), verbosity)

    class Watched(tf.LlamaForCausalLM):
        def forward(self, input_ids, **options):
            logger = tf.utils.logging.get_logger("transformers.models.llama")
            logger.error("from the run")
            other = threading.Thread(target=logger.error, args=["from elsewhere"])
            other.start()
            other.join()
            seen.append(state())
            return super().forward(input_ids, **options)

    seen, before = [], state()
    model, text = Watched(tf.LlamaConfig(**SIZE)), io.StringIO()
    handler = logging.StreamHandler(text)
    tf.utils.logging.add_handler(handler)
    try:
        behavior = trace_uses(walk(model))
    finally:
        tf.utils.logging.remove_handler(handler)
    assert behavior.usages
    assert seen == [before] * 3
    assert text.getvalue().splitlines() == ["from elsewhere"] * 3
    assert not handler.filters


def test_a_count_that_depends_on_values_is_not_made_up():
    """BLT cuts bytes into patches where they surprise it."""
    from zoo.tiny import walked

    (case,) = [case for case in walked() if case.name == "BltForCausalLM"]
    weights = sr.load(case.build())
    (note,) = of_key(weights.notes, "note.uses_by_rule")
    assert "depends on the values" in note
    assert weights.attention_widths is None


def test_a_model_that_cannot_be_run_says_so():
    class Broken(tf.LlamaForCausalLM):
        def forward(self, input_ids):  # noqa: ARG002
            raise RuntimeError("this wants\nmore")

    weights = sr.load(Broken(tf.LlamaConfig(**SIZE)))
    (note,) = of_key(weights.notes, "note.uses_by_rule")
    assert values_of(note, "note.uses_by_rule") == {"model": "Broken", "error": "this wants"}
    assert totals(weights)["flops_per_token"] == 2 * (2 * (4 * 32**2 + 3 * 32 * 48) + 64 * 32)


def test_groups_of_n_run_along_the_inputs_of_raw_matrices():
    torch.manual_seed(0)
    config = tf.XLNetConfig(d_model=32, n_layer=1, n_head=4, d_inner=48, vocab_size=64)
    weights = sr.load(tf.XLNetLMHeadModel(config))
    pruning = sr.n_m(weights, 2, 4)
    q = pruning.mask("transformer.layer.0.rel_attn.q").reshape(32, 32)  # inputs, outputs
    o = pruning.mask("transformer.layer.0.rel_attn.o").reshape(32, 32)  # outputs, inputs
    assert (q.reshape(8, 4, 32).sum(axis=1) == 2).all()
    assert (o.reshape(32, 8, 4).sum(axis=2) == 2).all()


@pytest.mark.parametrize(
    "model",
    [tf.T5ForConditionalGeneration(
         tf.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=64)
     ),
     tf.BertForMaskedLM(tf.BertConfig(**SIZE))],
    ids=["T5", "BERT"],
)  # fmt: skip
def test_a_tied_parameter_that_is_read_under_another_name_is_active(model, tmp_path):
    model.save_pretrained(tmp_path)
    for weights in (sr.load(model), sr.load(tmp_path)):
        totals = sr.compare(sr.dense(weights)).totals.loc[0]
        assert (
            totals["active_total"] == totals["total"] == sum(p.numel() for p in model.parameters())
        )


def test_hand_made_modules_follow_rules():
    model = nn.ModuleDict({"fc1": nn.Linear(4, 4), "pooler": nn.Linear(4, 4)})
    layers = sr.dense(model).layers().set_index("module_name")
    assert layers["flops_per_token"].tolist() == [32, 0]
    assert layers["flops_per_sequence"].tolist() == [0, 32]
    assert sr.load(model).notes == ()


def test_a_score_inside_attention_is_no_head():
    class TinyAttentionCell(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.score = nn.Linear(4, 4), nn.Linear(4, 1, bias=False)

    model = nn.ModuleDict({"cell": TinyAttentionCell(), "score": nn.Linear(4, 2, bias=False)})
    layers = sr.dense(model).layers().set_index("module_name")
    assert layers["flops_per_token"].to_dict() == {"cell.query": 32, "cell.score": 8, "score": 0}
    assert layers["flops_per_sequence"].to_dict() == {"cell.query": 0, "cell.score": 0, "score": 16}


@pytest.mark.parametrize(
    ("architecture", "per"),
    [(tf.BertForSequenceClassification, (0, 2 * 32 * 2)),
     (tf.BertForTokenClassification, (2 * 32 * 2, 0))],
)  # fmt: skip
def test_as_many_labels_as_token_types_are_no_vocabulary(architecture, per):
    layers = sr.dense(sr.load(architecture(tf.BertConfig(**SIZE, num_labels=2)))).layers()
    row = layers.set_index("module_name").loc["classifier"]
    assert (row["group"], row["prunable"]) == ("other_linear", False)
    assert (row["flops_per_token"], row["flops_per_sequence"]) == per


def test_heads_of_berts_output_are_known():
    weights = sr.load(tf.BertModel(tf.BertConfig(**SIZE)))
    output = weights["encoder.layer.0.attention.output.dense.weight"]
    assert (output.head_dim, output.head_axis) == (8, 1)
    assert weights["encoder.layer.0.output.dense.weight"].head_dim is None
