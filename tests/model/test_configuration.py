import copy
import json

import pytest
import torch

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMModel
from hf_minilm.model import configuration_minilm


def test_a_width_that_the_heads_do_not_divide_is_refused_with_the_nearest_one():
    with pytest.raises(
        ValueError, match=r"^hidden_size \(30\) must be a multiple of num_attention_heads \(4\)"
    ) as caught:
        MiniLMConfig(hidden_size=30, num_attention_heads=4)
    assert str(caught.value).endswith("the nearest is 28.")


@pytest.mark.parametrize(("width", "heads", "nearest"), [(31, 4, 32), (2, 8, 8), (29, 4, 28), (101, 12, 96)])
def test_the_nearest_width_is_the_nearest(width, heads, nearest):
    with pytest.raises(ValueError, match=f"the nearest is {nearest}"):
        MiniLMConfig(hidden_size=width, num_attention_heads=heads)


@pytest.mark.parametrize(
    ("keyword", "field"),
    [
        ("hiden_size", "hidden_size"),
        ("num_atention_heads", "num_attention_heads"),
        ("norm_placment", "norm_placement"),
        ("position_embeddings", "position_embedding"),
    ],
)
def test_a_misspelt_keyword_is_refused_with_the_nearest_field(keyword, field):
    with pytest.raises(ValueError, match=f"{keyword} must be a field of MiniLMConfig; the nearest is {field}"):
        MiniLMConfig(**{keyword: 8})


def test_a_keyword_that_resembles_no_field_is_kept_as_an_attribute():
    assert MiniLMConfig(my_own_note="kept").my_own_note == "kept"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_key_value_heads": 3}, r"num_attention_heads \(4\) must be a multiple of num_key_value_heads \(3\)"),
        ({"num_key_value_heads": -1}, r"num_key_value_heads \(-1\) must be at least 1"),
        ({"vocab_size": 0}, r"vocab_size \(0\) must be at least 1"),
        ({"num_attention_heads": 0}, r"num_attention_heads \(0\) must be at least 1"),
        ({"hidden_dropout": 1.0}, r"hidden_dropout \(1.0\) must lie in \[0, 1\)"),
        ({"attention_dropout": -0.1}, r"attention_dropout \(-0.1\) must lie in \[0, 1\)"),
        ({"type_vocab_size": -1}, r"type_vocab_size \(-1\) must not be negative"),
        ({"head_dim": 7}, r"head_dim \(7\) must be even for rope"),
        (
            {"head_dim": 2, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            r"head_dim \(2\) must be even for rope, .*, at least 4",
        ),
        (
            {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}},
            r"rope_type'\] \(longrope\) must be one of default",
        ),
        (
            {"head_dim": 6, "partial_rotary_factor": 0.5},
            r"head_dim \(6\) must be even for rope, .* \(3 with a partial_rotary_factor of 0.5",
        ),
        (
            {"position_embedding": "relative_bias", "relative_attention_num_buckets": 9},
            r"num_buckets \(9\) must be even",
        ),
        (
            {"position_embedding": "learned", "rope_parameters": {"rope_theta": 5.0}},
            r"rope_parameters and partial_rotary_factor must be None for position_embedding \(learned\)",
        ),
        (
            {"position_embedding": "sinusoidal", "hidden_size": 9, "num_attention_heads": 3},
            r"hidden_size \(9\) must be even for sinusoidal positions",
        ),
        (
            {"first_attention_norm": False},
            r"first_attention_norm \(False\) must be True with embedding_norm \(False\) and norm_placement \(pre\)",
        ),
        (
            {"first_attention_norm": False, "embedding_norm": True, "norm_placement": "post"},
            r"first_attention_norm \(False\) must be True with embedding_norm \(True\) and norm_placement \(post\)",
        ),
    ],
)
def test_contradicting_fields_are_refused_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        MiniLMConfig(**fields)
    assert "\n" not in str(caught.value)


def test_widths_left_open_are_derived():
    config = MiniLMConfig(hidden_size=96, num_attention_heads=6)
    assert (config.head_dim, config.num_key_value_heads, config.intermediate_size) == (16, 6, 160)
    assert MiniLMConfig(hidden_size=96, num_attention_heads=6, feed_forward="plain").intermediate_size == 384


def test_initial_weights_are_smaller_in_wider_models_and_as_published_in_the_classics():
    derived = {width: MiniLMConfig(hidden_size=width).initializer_range for width in (128, 768)}
    assert derived == {128: pytest.approx(0.05590, rel=1e-3), 768: pytest.approx(0.02282, rel=1e-3)}
    assert [MiniLMConfig.preset(name, "tiny").initializer_range for name in ("bert", "gpt2")] == [0.02, 0.02]
    assert MiniLMConfig(initializer_range=0.1).initializer_range == 0.1


@pytest.mark.parametrize("preset", configuration_minilm.PRESETS)
@pytest.mark.parametrize("size", configuration_minilm.SIZES)
def test_a_configuration_comes_back_equal_from_its_file(tmp_path, preset, size):
    config = MiniLMConfig.preset(preset, size, vocab_size=101)
    config.save_pretrained(tmp_path)
    assert MiniLMConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_a_saved_configuration_opens_whatever_another_library_has_put_into_it(tmp_path, make_config):
    config = make_config()
    config.norm_epsilon = 1e-3  # so near to norm_eps that a constructor would refuse it
    config.sliding_window = 4  # no layer has a window
    config.save_pretrained(tmp_path)
    assert MiniLMConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_the_plans_for_several_processes_name_only_what_is_there_and_no_attention_under_a_bias(make_config):
    plans = {
        fields: MiniLMModel(make_config(feed_forward=fields[0], position_embedding=fields[1])).tp_plan
        for fields in (("gated", "rope"), ("plain", "rope"), ("gated", "alibi"))
    }
    whole = set(plans["gated", "rope"])
    assert "layers.*.attention.query" in whole
    assert whole - set(plans["plain", "rope"]) == {"layers.*.feed_forward.gate"}
    assert whole - set(plans["gated", "alibi"]) == {name for name in whole if "attention" in name}


def test_the_plain_defaults_are_those_of_configurations_saved_before_the_presets_changed():
    config = MiniLMConfig()
    kept = (config.norm, config.hidden_act, config.embedding_norm, config.first_attention_norm, config.type_vocab_size)
    assert kept == ("layer_norm", "gelu", False, True, 2)


def test_overrides_win_over_the_preset_and_the_size():
    config = MiniLMConfig.preset("bert", "tiny", hidden_size=64, norm_placement="pre")
    assert (config.hidden_size, config.norm_placement, config.num_hidden_layers) == (64, "pre", 4)


@pytest.mark.parametrize(
    ("arguments", "message"), [(("brt",), "preset .brt. must be"), (("bert", "huge"), "size .huge. must be")]
)
def test_an_unknown_preset_or_size_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MiniLMConfig.preset(*arguments)


def test_the_whole_auto_map_is_saved_by_any_head(tmp_path, make_config):
    MiniLMForMaskedLM(make_config()).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert saved == configuration_minilm.AUTO_MAP


def test_only_rope_keeps_rope_parameters(make_config):
    assert make_config(position_embedding="none").rope_parameters is None
    assert make_config().rope_parameters["rope_theta"] == 10_000


@pytest.mark.parametrize("model_class", [MiniLMModel, MiniLMForMaskedLM, MiniLMForCausalLM])
@pytest.mark.parametrize("is_causal", [None, False, True])
def test_the_configuration_passed_in_is_left_as_it_was(make_config, model_class, is_causal):
    config = make_config(is_causal=is_causal)
    before = config.to_dict()
    model_class(config)
    assert config.to_dict() == before


@pytest.fixture
def saved(tmp_path):
    MiniLMConfig(rope_parameters={"rope_type": "default", "rope_theta": 5_000.0}).save_pretrained(tmp_path)
    return tmp_path


def test_fields_given_to_from_pretrained_are_completed_as_those_of_a_new_configuration(saved):
    config, unused = MiniLMConfig.from_pretrained(
        saved,
        rope_parameters={"rope_type": "linear", "factor": 4.0},
        hidden_size=80,
        num_attention_heads=5,
        num_key_value_heads=None,
        head_dim=None,
        num_labels=3,
        return_unused_kwargs=True,
        unheard_of=1,
    )
    assert config.rope_parameters == {"rope_type": "linear", "factor": 4.0, "rope_theta": 5_000.0}
    assert (config.hidden_size, config.head_dim, config.num_labels) == (80, 16, 3)
    assert unused == {"unheard_of": 1}


LINEAR, YARN = {"rope_type": "linear", "factor": 4.0}, {"rope_type": "yarn", "factor": 4.0}
BASE, LENGTH = {"rope_theta": 5_000.0}, {"original_max_position_embeddings": 41}
BY_LAYER = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}


@pytest.mark.parametrize(
    ("saved", "given", "expected"),
    [
        (BASE, {"rope_scaling": LINEAR}, {**LINEAR, **BASE}),
        (BASE, {"rope_scaling": {"type": "linear", "factor": 4.0}}, {**LINEAR, **BASE}),
        (BASE, {"rope_scaling": None}, BASE),
        (BASE, {"max_position_embeddings": 164, "rope_parameters": YARN}, {**YARN, **BASE, **LENGTH}),
        (BASE, {"max_position_embeddings": 164, "rope_scaling": YARN}, {**YARN, **BASE, **LENGTH}),
        (
            {**BASE, **YARN, "original_max_position_embeddings": 7},
            {"rope_parameters": {**YARN, "factor": 2.0}},
            {**BASE, **YARN, "factor": 2.0, "original_max_position_embeddings": 7},
        ),
        (
            {**BASE, "partial_rotary_factor": 0.5},
            {"rope_parameters": LINEAR},
            {**LINEAR, **BASE, "partial_rotary_factor": 0.5},
        ),
        (
            BASE,
            {**BY_LAYER, "rope_parameters": {"sliding_attention": LINEAR, "full_attention": {"rope_theta": 9.0}}},
            {"sliding_attention": {**LINEAR, **BASE}, "full_attention": {"rope_theta": 9.0}},
        ),
        (
            {"sliding_attention": BASE, "full_attention": {"rope_theta": 9.0}},
            {"rope_parameters": LINEAR},
            {"sliding_attention": {**LINEAR, **BASE}, "full_attention": {**LINEAR, "rope_theta": 9.0}},
        ),
    ],
    ids=str,
)
def test_rotary_parameters_given_to_from_pretrained_turn_as_those_of_a_configuration_built_by_hand(
    make_config, draw_tokens, tmp_path, saved, given, expected
):
    layers = BY_LAYER if "full_attention" in expected else {}
    MiniLMModel(make_config(rope_parameters=saved, head_dim=8, **layers)).save_pretrained(tmp_path)
    opened = MiniLMModel.from_pretrained(tmp_path, **given)
    fields = {name: value for name, value in given.items() if name == "max_position_embeddings"}
    by_hand = MiniLMModel(make_config(rope_parameters=copy.deepcopy(expected), head_dim=8, **layers, **fields)).eval()
    by_hand.load_state_dict(opened.state_dict())
    tokens = draw_tokens(2, 9)
    assert torch.equal(opened(tokens).last_hidden_state, by_hand(tokens).last_hidden_state)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"position_embedding": "alibi"}, "rope_parameters and partial_rotary_factor must be None"),
        ({"rope_scaling": LINEAR, "rope_parameters": YARN}, "rope_parameters and rope_scaling: only one of them"),
        ({"layer_types": ["sliding_attention"] * 4}, r"sliding_window \(None\) must be given"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "num_attention_heads"),
    ],
    ids=str,
)
def test_fields_given_to_from_pretrained_that_contradict_the_saved_ones_are_refused(saved, given, message):
    with pytest.raises(ValueError, match=message):
        MiniLMConfig.from_pretrained(saved, **given)


def test_rotary_parameters_by_their_old_name_are_refused_too_where_nothing_turns(tmp_path, make_config):
    make_config(position_embedding="alibi").save_pretrained(tmp_path)
    for name in ("rope_scaling", "rope_parameters"):
        with pytest.raises(ValueError, match="rope_parameters and partial_rotary_factor must be None"):
            MiniLMConfig.from_pretrained(tmp_path, **{name: LINEAR})
