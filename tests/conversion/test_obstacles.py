"""A configuration says what it can become, and each field that stands in the way with the nearest value that fits."""

import pytest
import transformers
from native_models import CHOICES, config_of
from transformers import BertConfig, GPT2Config, LlamaConfig, RobertaConfig

from hf_minilm import MiniLMConfig, MiniLMForMaskedLM, MiniLMSeq2SeqConfig
from hf_minilm.conversion import ARCHITECTURES, expressible, expressible_line, from_native, to_native
from hf_minilm.conversion.architecture import CARRIED, field_names

SIZES = {"vocab_size": 67, "hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 53}
BERT = {
    **{"position_embedding": "learned", "norm_placement": "post", "embedding_norm": True, "norm_bias": True},
    **{"feed_forward": "plain", "attention_bias": True, "feed_forward_bias": True, "output_bias": True},
}
LLAMA = {"norm": "rms_norm", "hidden_act": "silu", "type_vocab_size": 0, "is_causal": True}


def said(config, architecture, head):
    return [str(obstacle) for obstacle in expressible(config, head)[architecture]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_field_of_a_native_configuration_is_accounted_for(architecture):
    known = ARCHITECTURES[architecture]
    told = {native.split(".")[0] for _, native in known.same} | set(CARRIED) | set(known.native_fixed) | known.ignored
    overridden = {
        "mistral": {"sliding_window"},
        "modernbert": {"local_attention", "rope_parameters", "classifier_pooling"},
        "modernbert-decoder": {"local_attention", "rope_parameters"},
        "t5": {"feed_forward_proj"},
        "marian": {"share_encoder_decoder_embeddings"},
    }.get(architecture, set())
    assert set(field_names(known.config_class())) <= told | known.training | overridden


@pytest.mark.parametrize("head", ["MiniLMForMaskedLM", "MiniLMForPreTraining", "MiniLMForSequenceClassification"])
def test_the_bert_preset_can_become_bert_and_roberta(head):
    config = MiniLMConfig.preset("bert", "tiny")
    assert [name for name, obstacles in expressible(config, head).items() if not obstacles] == ["bert", "roberta"]
    assert expressible_line(config, head) == "native twins: bert, roberta (hf-minilm export)"


def test_the_gpt2_preset_can_become_gpt2():
    config = MiniLMConfig.preset("gpt2", "tiny")
    assert expressible_line(config, "MiniLMForCausalLM") == "native twins: gpt2 (hf-minilm export)"


def test_a_saved_configuration_is_asked_for_the_class_that_was_saved(tmp_path):
    MiniLMForMaskedLM(MiniLMConfig(**SIZES, **BERT, norm_eps=1e-12)).save_pretrained(tmp_path)
    found = expressible(MiniLMConfig.from_pretrained(tmp_path))
    assert found["bert"] == []
    assert str(found["gpt2"][0]) == "is_causal (False) must be True"


@pytest.mark.parametrize(
    ("changed", "obstacles"),
    [
        ({"position_embedding": "alibi"}, ["position_embedding (alibi) must be learned"]),
        ({"norm": "rms_norm"}, ["norm (rms_norm) must be layer_norm"]),
        ({"norm_bias": False}, ["norm_bias (False) must be True"]),
        ({"embedding_norm": False}, ["embedding_norm (False) must be True"]),
        ({"scale_embeddings": True}, ["scale_embeddings (True) must be False"]),
        ({"attention_bias": False}, ["attention_bias (False) must be True"]),
        ({"feed_forward_bias": False}, ["feed_forward_bias (False) must be True"]),
        ({"feed_forward": "gated"}, ["feed_forward (gated) must be plain"]),
        ({"qk_norm": True}, ["qk_norm (True) must be False"]),
        ({"num_key_value_heads": 1}, ["num_key_value_heads (1) must be 3"]),
        ({"head_dim": 10}, ["head_dim (10) must be 12"]),
        ({"hidden_size": 37, "head_dim": 11}, ["hidden_size (37) must be 36", "head_dim (11) must be 12"]),
        ({"type_vocab_size": 0}, ["type_vocab_size (0) must be 1"]),
        ({"output_bias": False}, ["output_bias (False) must be True"]),
        ({"prediction_transform": False}, ["prediction_transform (False) must be True"]),
        (
            {"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]},
            [
                "layer_types (['full_attention', 'sliding_attention']) must be full_attention in every layer",
                "sliding_window (4) must be None",
            ],
        ),
        (
            {"norm_placement": "pre", "feed_forward": "gated"},
            ["norm_placement (pre) must be post", "feed_forward (gated) must be plain"],
        ),
    ],
    ids=str,
)
def test_what_bert_cannot_express_is_named_with_the_nearest_value_that_fits(changed, obstacles):
    assert said(MiniLMConfig(**{**SIZES, **BERT, **changed}), "bert", "MiniLMForMaskedLM") == obstacles


@pytest.mark.parametrize(
    ("architecture", "changed", "obstacles"),
    [
        ("llama", {}, []),
        ("mistral", {}, []),
        ("qwen3", {}, ["qk_norm (False) must be True"]),
        ("llama", {"norm": "layer_norm"}, ["norm (layer_norm) must be rms_norm"]),
        ("llama", {"type_vocab_size": 2}, ["type_vocab_size (2) must be 0"]),
        ("llama", {"feed_forward_bias": True}, []),
        ("mistral", {"feed_forward_bias": True}, ["feed_forward_bias (True) must be False"]),
        ("llama", {"hidden_size": 38, "head_dim": 8}, ["hidden_size (38) must be 39"]),
        ("mistral", {"hidden_size": 38, "head_dim": 8}, []),
        ("mistral", {"sliding_window": 4, "layer_types": ["sliding_attention"] * 2}, []),
        ("qwen3", {"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"], "qk_norm": True}, []),
        (
            "mistral",
            {"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]},
            ["layer_types (['full_attention', 'sliding_attention']) must be sliding_attention in every layer"],
        ),
        ("llama", {"output_bias": True}, ["output_bias (True) must be False"]),
        ("llama", {"partial_rotary_factor": 1.0}, []),
        ("llama", {"position_embedding": "none"}, ["position_embedding (none) must be rope"]),
    ],
    ids=str,
)
def test_what_the_llama_family_cannot_express_is_named(architecture, changed, obstacles):
    assert said(MiniLMConfig(**{**SIZES, **LLAMA, **changed}), architecture, "MiniLMForCausalLM") == obstacles


def test_a_field_is_an_obstacle_only_to_the_classes_that_read_it():
    config = MiniLMConfig(**SIZES, **LLAMA, output_bias=True, classifier_pooling="mean", prediction_transform=True)
    assert said(config, "llama", "MiniLMForTokenClassification") == []
    assert said(config, "llama", "MiniLMForSequenceClassification") == [
        "classifier_pooling (mean) must be None",
        "classifier_bias (True) must be False",
    ]


def test_a_causal_head_cannot_become_bidirectional():
    config = MiniLMConfig(**SIZES, **BERT)
    assert said(config, "bert", "MiniLMForCausalLM") == ["is_causal (True) must be False"]


def test_roberta_needs_a_padding_token_and_its_masked_head_knows_one_activation():
    config = MiniLMConfig(**SIZES, **BERT, pad_token_id=None, hidden_act="relu")
    assert said(config, "roberta", "MiniLMForMaskedLM") == [
        "pad_token_id (None) must be 1",
        "hidden_act (relu) must be gelu",
    ]
    assert said(config, "roberta", "MiniLMForTokenClassification") == ["pad_token_id (None) must be 1"]


def test_an_answer_has_two_ends():
    config = MiniLMConfig(**SIZES, **BERT, num_labels=5)
    assert said(config, "bert", "MiniLMForQuestionAnswering") == ["num_labels (5) must be 2"]


def test_an_encoder_decoder_is_no_bert():
    config = MiniLMSeq2SeqConfig(encoder=SIZES, decoder=SIZES)
    assert said(config, "bert", "MiniLMForConditionalGeneration") == [
        "model_type (hf_minilm_seq2seq) must be hf_minilm"
    ]


def test_the_line_names_the_nearest_architecture_and_all_that_it_asks_for():
    config = MiniLMConfig(**SIZES, **{**LLAMA, "norm": "layer_norm"}, output_bias=True)
    assert expressible_line(config, "MiniLMForCausalLM") == (
        "native twins: none; for the nearest, llama, norm (layer_norm) must be rms_norm; "
        "output_bias (True) must be False"
    )


def test_export_refuses_with_every_field_before_it_opens_any_weights(tmp_path):
    MiniLMConfig(**SIZES, architectures=["MiniLMForMaskedLM"]).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"must be expressible as bert.* position_embedding \(rope\) must be learned; "
    ):
        to_native(tmp_path, "bert")


@pytest.mark.parametrize(
    ("config", "native_class", "obstacles"),
    [
        (
            BertConfig(**CHOICES["bert"]["plain"], is_decoder=True, add_cross_attention=True),
            "BertModel",
            r"is_decoder \(True\) must be False; add_cross_attention \(True\) must be False",
        ),
        (
            GPT2Config(**CHOICES["gpt2"]["plain"], scale_attn_by_inverse_layer_idx=True, scale_attn_weights=False),
            "GPT2LMHeadModel",
            r"scale_attn_weights \(False\) must be True; scale_attn_by_inverse_layer_idx \(True\) must be False",
        ),
        (
            RobertaConfig(**{**CHOICES["roberta"]["plain"], "hidden_act": "relu"}),
            "RobertaForMaskedLM",
            r"hidden_act \(relu\) must be gelu",
        ),
        (
            BertConfig(**CHOICES["bert"]["plain"], num_labels=5),
            "BertForQuestionAnswering",
            r"num_labels \(5\) must be 2",
        ),
        (
            LlamaConfig(
                **CHOICES["llama"]["grouped heads"],
                rope_parameters={
                    **{"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0},
                    **{"short_factor": [1.0] * 3, "long_factor": [2.0] * 3, "original_max_position_embeddings": 16},
                },
            ),
            "LlamaForCausalLM",
            r"rope_parameters\['rope_type'\] \(longrope\) must be one of default, linear, dynamic, yarn, llama3",
        ),
    ],
    ids=str,
)
def test_import_refuses_with_every_field_before_it_opens_any_weights(tmp_path, config, native_class, obstacles):
    config.architectures = [native_class]
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"must be expressible as hf_minilm, and is not: {obstacles}\."):
        from_native(tmp_path)


def test_a_quantised_model_is_refused(tmp_path):
    config = config_of("bert", "plain", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"quantization_config \(given\) must be None"):
        from_native(tmp_path)


def test_an_unknown_architecture_is_answered_with_those_that_are_known(tmp_path):
    transformers.OPTConfig(architectures=["OPTModel"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model_type \(opt\) of .* must be one of bert, roberta, gpt2, llama"):
        from_native(tmp_path)
    with pytest.raises(ValueError, match=r"architecture \(opt\) must be one of bert, roberta"):
        to_native(tmp_path, "opt")
