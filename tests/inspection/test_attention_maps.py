"""Maps taken beside the fast path are those that eager attention returns, and the run does not notice."""

import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface, BertConfig, BertModel, LlamaConfig, LlamaModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.masking_utils import flash_attention_mask, flex_attention_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import hf_minilm
from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMModel
from hf_minilm.inspection import attention_maps
from hf_minilm.inspection.attention_maps import watched_attention
from hf_minilm.model import variable_length
from hf_minilm.model.attention import Attention, written_out_attention
from hf_minilm.model.positions import POSITION_SCHEMES, PositionScheme

CLASSES = [getattr(hf_minilm, name) for name in hf_minilm.__all__ if name.startswith(("MiniLMFor", "MiniLMModel"))]
HEADS = [model_class for model_class in CLASSES if model_class.config_class is MiniLMConfig]
"""The classes of one stack; tests/model/test_seq2seq.py looks into the encoder-decoder."""
LENGTH = 11


def make_model(model_class=MiniLMModel, *, attention="sdpa", **overrides):
    """Equal arguments but `attention` give equal weights, large enough that attention is far from uniform."""
    fields = {
        "vocab_size": 61,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 37,
        "initializer_range": 0.3,
    }
    torch.manual_seed(3)
    model = model_class(MiniLMConfig(**{**fields, **overrides}))
    model.set_attn_implementation(attention)
    return model.eval()


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(1, 61, shape, generator=torch.Generator().manual_seed(11))


def inputs_of(kind: str) -> dict[str, torch.Tensor]:
    input_ids = tokens(3, LENGTH)
    if kind == "packed":
        rows = [[*range(4), *range(LENGTH - 4)], [0, *range(6), *range(LENGTH - 7)], [*range(LENGTH)]]
        return {"input_ids": input_ids, "position_ids": torch.tensor(rows)}
    mask = torch.ones_like(input_ids)
    if kind == "right":
        mask[1, -3:], mask[2, -5:] = 0, 0
    if kind == "left":
        mask[1, :3], mask[2, :5] = 0, 0
    return {"input_ids": input_ids, "attention_mask": mask}


def assert_equal(maps, expected):
    assert len(maps) == len(expected)
    for ours, theirs in zip(maps, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-4)


def assert_eager(inputs, *, attention="sdpa", **overrides):
    """Maps beside a kernel are those that an equal model returns from eager attention."""
    expected = make_model(attention="eager", **overrides)(**inputs, output_attentions=True).attentions
    assert_equal(attention_maps(make_model(attention=attention, **overrides), inputs), expected)


@pytest.mark.parametrize("key_value_heads", [1, 2, 4])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kind", ["whole", "right", "left", "packed"])
def test_maps_beside_sdpa_are_those_that_eager_attention_returns(kind, is_causal, key_value_heads):
    assert_eager(inputs_of(kind), is_causal=is_causal, num_key_value_heads=key_value_heads, qk_norm=True)


@pytest.mark.parametrize("scheme", ["rope", "alibi"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kind", ["whole", "right", "left", "packed"])
def test_layers_that_see_a_window_and_layers_that_see_all_have_their_own_maps(kind, is_causal, scheme):
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    assert_eager(inputs_of(kind), is_causal=is_causal, position_embedding=scheme, layer_types=types, sliding_window=3)


@pytest.mark.parametrize("layer_type", ["full_attention", "sliding_attention"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kind", ["whole", "right", "left", "packed"])
def test_the_kernel_for_packed_rows_has_the_maps_of_eager_attention(monkeypatch, kind, is_causal, layer_type):
    # Only the first layer's queries and keys do not depend on the kernel, which needs CUDA and is left out here.
    monkeypatch.setattr(variable_length, "_kernel", lambda: lambda query, *_, **__: torch.zeros_like(query))
    inputs = inputs_of(kind)
    real = inputs.get("attention_mask", torch.ones(3, LENGTH)).bool()
    window = 3 if layer_type == "sliding_attention" else None
    overrides = {"is_causal": is_causal, "layer_types": [layer_type] * 3, "sliding_window": window}
    expected = make_model(attention="eager", **overrides)(**inputs, output_attentions=True).attentions[0]
    model = make_model(attention=variable_length.VARIABLE_LENGTH, **overrides)
    (weights,) = attention_maps(model, {**inputs, "use_cache": False}, layers=[0])
    # Padding looks at padding here, and nobody looks at it.
    assert_equal([weights.transpose(1, 2)[real]], [expected.transpose(1, 2)[real]])


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_cross_attention_has_maps_of_the_other_text(implementation):
    generator = torch.Generator().manual_seed(3)
    own, other = torch.randn(2, 5, 24, generator=generator), torch.randn(2, 8, 24, generator=generator)
    attentions = []
    for name in ("eager", implementation):
        model = make_model(attention=name, is_causal=True)
        torch.manual_seed(0)
        attentions.append(Attention(model.config, 0, is_cross=True).eval())
    _, expected = attentions[0](own, encoder_hidden_states=other)
    maps = attention_maps(attentions[1], {"hidden_states": own, "encoder_hidden_states": other})
    assert maps[0].shape == (2, 4, 5, 8)
    assert_equal(maps, [expected])


# torch's compiler, and the way in which transformers calls it, use what torch is going to drop.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "is_causal", "scheme"),
    [("whole", True, "rope"), ("right", False, "alibi"), ("left", True, "alibi"), ("packed", False, "rope")],
)
def test_maps_beside_flex_attention_are_those_that_eager_attention_returns(kind, is_causal, scheme):
    torch.compiler.reset()
    overrides = {"is_causal": is_causal, "position_embedding": scheme, "hidden_size": 64}
    inputs = inputs_of(kind)
    with torch.no_grad():
        expected = make_model(attention="eager", **overrides)(**inputs, output_attentions=True).attentions
        assert_equal(attention_maps(make_model(attention="flex_attention", **overrides), inputs), expected)


class Nearest(PositionScheme):
    heads = 4

    def added_to_scores(self, query_positions, key_positions, *arguments):
        distance = (query_positions[:, :, None] - key_positions[:, None, :]).abs()
        return -distance[:, None] * torch.linspace(0.1, 2.0, self.heads)[:, None, None]


class NearestForAllHeads(Nearest):
    heads = 1


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scheme", [Nearest, NearestForAllHeads])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kind", ["whole", "left", "packed"])
def test_a_position_bias_is_in_the_maps(monkeypatch, kind, is_causal, scheme, attention):
    monkeypatch.setitem(POSITION_SCHEMES, "nearest", scheme)
    assert_eager(inputs_of(kind), attention=attention, is_causal=is_causal, position_embedding="nearest")


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_a_whole_mask_of_ones_own_is_in_the_maps_whatever_its_form(dtype):
    may_look = torch.rand(3, 1, LENGTH, LENGTH, generator=torch.Generator().manual_seed(5)) < 0.6
    may_look[1, 0, 4] = False  # a query that may look at nothing
    mask = may_look
    if dtype.is_floating_point:
        mask = torch.where(may_look, 0.0, torch.finfo(dtype).min)
        mask[1, 0, 4] = -torch.inf  # where sdpa, too, gives zeros to a query that may look at nothing
    assert_eager({"input_ids": tokens(3, LENGTH), "attention_mask": mask})
    (weights,) = attention_maps(
        make_model(), {"input_ids": tokens(3, LENGTH), "attention_mask": mask}, layers=[0], heads=[2]
    )
    assert torch.equal(weights > 0, may_look)


@pytest.mark.parametrize("new", [1, 3])
def test_keys_from_a_cache_are_in_the_maps(new):
    input_ids, maps = tokens(2, 9), {}
    for attention in ("eager", "sdpa"):
        model = make_model(attention=attention, is_causal=True)
        past = model(input_ids[:, :-new], use_cache=True).past_key_values
        inputs = {"input_ids": input_ids[:, -new:], "past_key_values": past}
        if attention == "eager":
            maps[attention] = model(**inputs, output_attentions=True).attentions
        else:
            maps[attention] = attention_maps(model, inputs)
    assert maps["sdpa"][0].shape == (2, 4, new, 9)
    assert_equal(maps["sdpa"], maps["eager"])


@pytest.mark.parametrize("model_class", HEADS)
def test_maps_are_found_in_every_class_of_one_stack(model_class):
    inputs = {"input_ids": tokens(2, 3, 5) if "Choice" in model_class.__name__ else tokens(2, 5)}
    expected = make_model(model_class, attention="eager")(**inputs, output_attentions=True).attentions
    assert_equal(attention_maps(make_model(model_class), inputs), expected)


def test_code_that_came_with_a_saved_model_is_looked_into_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    make_model().save_pretrained(tmp_path / "model")
    travelled = get_class_from_dynamic_module("modeling_minilm.MiniLMModel", str(tmp_path / "model"))
    assert travelled is not MiniLMModel
    model = travelled.from_pretrained(tmp_path / "model", attn_implementation="sdpa").eval()
    inputs = inputs_of("right")
    assert_equal(attention_maps(model, inputs), attention_maps(make_model(), inputs))


@pytest.mark.parametrize(
    ("model_class", "config_class"), [(BertModel, BertConfig), (LlamaModel, LlamaConfig)], ids=["bert", "llama"]
)
@pytest.mark.parametrize("kind", ["whole", "right", "left"])
def test_models_of_transformers_give_the_maps_that_their_own_eager_attention_returns(model_class, config_class, kind):
    config = config_class(
        vocab_size=61,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=37,
        max_position_embeddings=41,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model, inputs = model_class(config).eval(), inputs_of(kind)
    real = inputs["attention_mask"].bool()
    model.set_attn_implementation("eager")
    expected = model(**inputs, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    maps = attention_maps(model, inputs)
    # Queries at the padding that may look at nothing have weights of 1 / S in transformers, and of 0 here.
    assert_equal([weights.transpose(1, 2)[real] for weights in maps], [w.transpose(1, 2)[real] for w in expected])


def test_layers_and_heads_come_in_the_order_asked_for_and_negative_ones_count_from_the_last():
    inputs, model = inputs_of("right"), make_model()
    everything = attention_maps(model, inputs)
    last, first = attention_maps(model, inputs, layers=[-1, 0], heads=[3, -4, 1])
    assert_equal((last, first), [everything[layer][:, [3, 0, 1]] for layer in (2, 0)])
    assert [tuple(weights.shape) for weights in everything] == [(3, 4, LENGTH, LENGTH)] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": [0, 3]}, r"^layers \(3\) must be from -3 to 2, as there are 3; choose one of them\.$"),
        ({"layers": [-4]}, r"^layers \(-4\) must be from -3 to 2, "),
        ({"heads": [4]}, r"^heads \(4\) must be from -4 to 3, as there are 4; choose one of them\.$"),
        ({"heads": []}, r"^heads \(\[\]\) must name at least one; give None for all\.$"),
        ({"named": "*cross*"}, r"^named \(\*cross\*\) must fit an attention module, and MiniLMModel holds layers\.0\."),
    ],
)
def test_a_choice_that_does_not_exist_is_refused_before_the_model_runs(arguments, message):
    model = make_model()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=message):
        attention_maps(model, {"input_ids": tokens(1, 5)}, **arguments)


def test_a_model_without_attention_is_refused():
    with pytest.raises(ValueError, match=r"must fit an attention module, and Linear holds none; give another\.$"):
        attention_maps(nn.Linear(2, 3), {"input": torch.ones(1, 2)})


def test_a_layer_that_the_model_does_not_run_is_an_error():
    model = make_model()
    model.layers[1].forward = lambda hidden_states, *_, **__: hidden_states
    with pytest.raises(RuntimeError, match=r"^layers \(1\) must be among those that the model runs; "):
        attention_maps(model, {"input_ids": tokens(1, 5)})


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_outputs_random_state_and_training_flag_are_those_of_a_run_without_maps(attention, training):
    model = make_model(
        MiniLMForCausalLM, attention=attention, is_causal=True, attention_dropout=0.2, hidden_dropout=0.1
    ).train(training)
    inputs = inputs_of("packed") | {"labels": tokens(3, LENGTH), "return_logits": True}
    torch.manual_seed(8)
    expected, state = model(**inputs), torch.get_rng_state()
    outputs = []
    model.register_forward_hook(lambda module, arguments, output: outputs.append(output))
    torch.manual_seed(8)
    attention_maps(model, inputs)
    assert torch.equal(outputs[0].logits, expected.logits)
    assert torch.equal(outputs[0].loss, expected.loss)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training == training
    assert model.config._attn_implementation == attention


def test_a_compiled_model_gives_its_maps_and_then_what_it_gave_before():
    inputs, model = inputs_of("left"), make_model()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        expected = compiled(**inputs).last_hidden_state
        maps = attention_maps(compiled, inputs, layers=[1], heads=[2, 0])
        assert_equal(maps, [attention_maps(model, inputs)[1][:, [2, 0]]])
        assert torch.equal(compiled(**inputs).last_hidden_state, expected)


def test_maps_of_a_training_model_are_the_weights_before_dropout():
    inputs = inputs_of("whole")
    trained = attention_maps(make_model(attention_dropout=0.4).train(), inputs, layers=[0])
    assert torch.equal(trained[0], attention_maps(make_model(), inputs, layers=[0])[0])


def test_maps_have_a_gradient_where_gradients_are_enabled_and_it_is_that_of_eager_attention():
    inputs = inputs_of("left")
    with torch.no_grad():
        assert not attention_maps(make_model(), inputs)[1].requires_grad
    gradients = []
    for attention in ("eager", "sdpa"):
        model = make_model(attention=attention)
        if attention == "eager":
            weights = model(**inputs, output_attentions=True).attentions[2]
        else:
            weights = attention_maps(model, inputs)[2]
        (weights * torch.linspace(-1, 1, LENGTH)).sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for eager, sdpa in zip(*gradients, strict=True):
        torch.testing.assert_close(sdpa, eager, atol=2e-5, rtol=1e-4)


def test_nothing_is_watched_any_more_after_a_run_or_an_error():
    model, inputs = make_model(), {"input_ids": tokens(1, 5)}
    attention_maps(model, inputs)
    assert "get_interface" not in vars(ALL_ATTENTION_FUNCTIONS)
    model.layers[1].register_forward_hook(lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError, match="by zero"):
        attention_maps(model, inputs)
    assert "get_interface" not in vars(ALL_ATTENTION_FUNCTIONS)


def test_a_watch_inside_a_watch_ends_alone():
    model, inputs, outer, inner = make_model(), {"input_ids": tokens(1, 5)}, [], []
    with watched_attention(outer.append):
        with watched_attention(inner.append):
            model(**inputs)
        model(**inputs)
    model(**inputs)
    assert (len(outer), len(inner)) == (6, 3)


def test_models_in_other_threads_are_not_mixed_up():
    inputs = inputs_of("right")
    models = [make_model(num_attention_heads=heads, num_key_value_heads=1) for heads in (2, 4, 6)]
    expected = [attention_maps(model, inputs) for model in models]
    found = {}

    def look(index):
        for _ in range(5):
            found[index] = attention_maps(models[index], inputs)

    threads = [threading.Thread(target=look, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, maps in enumerate(expected):
        assert_equal(found[index], maps)


def test_half_precision_gives_float32_maps_that_are_exact_for_its_queries_and_keys():
    inputs = inputs_of("right")
    maps = attention_maps(make_model().to(torch.bfloat16), inputs)
    expected = make_model(attention="eager").to(torch.bfloat16)(**inputs, output_attentions=True).attentions
    for ours, theirs in zip(maps, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.sum(-1), torch.ones(3, 4, LENGTH), atol=1e-6, rtol=0)
        torch.testing.assert_close(ours, theirs.float(), atol=0.05, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = attention_maps(make_model(), inputs)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(3, 4, LENGTH), atol=1e-6, rtol=0)


class LoneAttention(nn.Module):
    """Hands over what it is given through the attention interface, like any attention module."""

    layer_idx = 0
    num_key_value_groups = 2
    is_causal = False

    def __init__(self, implementation: str, **options: object) -> None:
        super().__init__()
        self.config = SimpleNamespace(_attn_implementation=implementation, num_attention_heads=4)
        self.options = options

    def forward(self, query, key, attention_mask):
        attention_function = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, written_out_attention
        )
        return attention_function(self, query, key, key, attention_mask, scaling=0.7, **self.options)


def call_of(queries: int, keys: int, mask: object) -> dict[str, object]:
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(2, 4, queries, 6, generator=generator)
    return {"query": query, "key": torch.randn(2, 2, keys, 6, generator=generator), "attention_mask": mask}


def weights_under(mask: torch.Tensor | None, *, queries: int, keys: int) -> torch.Tensor:
    """What the written-out formula gives under a boolean mask."""
    call = call_of(queries, keys, mask)
    return written_out_attention(LoneAttention("eager"), call["query"], call["key"], call["key"], mask, scaling=0.7)[1]


@pytest.fixture
def fake_kernel(monkeypatch):
    """Register a kernel under a name, with the function that makes its masks."""

    def register(name, make_mask):
        monkeypatch.setitem(AttentionInterface._global_mapping, name, lambda *_, **__: (torch.zeros(1), None))
        if make_mask is not None:
            monkeypatch.setitem(AttentionMaskInterface._global_mapping, name, make_mask)

    return register


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("padded", [False, True])
def test_another_text_may_be_looked_at_that_is_longer_or_shorter(implementation, padded):
    for queries, keys in ((5, 7), (7, 5), (1, 3)):
        mask = None
        if padded:
            mask = torch.ones(2, 1, queries, keys, dtype=torch.bool)
            mask[1, ..., -2:] = False
        expected = weights_under(mask, queries=queries, keys=keys)
        assert_equal(attention_maps(LoneAttention(implementation), call_of(queries, keys, mask)), [expected])


def test_no_mask_means_to_eager_and_flex_attention_that_all_may_look_whatever_the_direction(fake_kernel):
    fake_kernel("flex_like", flex_attention_mask)
    expected = weights_under(None, queries=5, keys=7)
    for implementation in ("eager", "flex_like"):
        module = LoneAttention(implementation, is_causal=True)
        assert_equal(attention_maps(module, call_of(5, 7, None)), [expected])


def test_blocks_of_flex_attention_are_read_as_the_mask_that_they_stand_for(fake_kernel):
    fake_kernel("blocks", lambda **_: None)
    ends = torch.tensor([9, 4])
    blocks = create_block_mask(lambda b, h, q, k: (q >= k) & (k < ends[b]), 2, None, 5, 9, device="cpu")
    mask = torch.ones(5, 9, dtype=torch.bool).tril() & (torch.arange(9) < ends[:, None, None, None])
    expected = weights_under(mask, queries=5, keys=9)
    assert_equal(attention_maps(LoneAttention("blocks"), call_of(5, 9, blocks)), [expected])


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("window", [None, 3])
def test_flash_attention_is_told_direction_window_and_padding_and_ends_with_its_keys(fake_kernel, window, is_causal):
    fake_kernel("flash_like", flash_attention_mask)
    padding = torch.tensor([[1] * 8, [0, 0] + [1] * 6])
    place = torch.arange(8)
    distance = (place[:, None] - place)[3:]  # five queries, the last of eight tokens
    seen = distance.abs() < (window or 9)
    if is_causal:
        seen &= distance >= 0
    module = LoneAttention("flash_like", sliding_window=window, is_causal=is_causal)
    for mask, expected in ((padding, seen & padding[:, None, None].bool()), (None, seen[None, None])):
        maps = attention_maps(module, call_of(5, 8, mask))
        assert_equal(maps, [weights_under(expected, queries=5, keys=8)])


def test_bounds_of_sequences_in_one_line_of_tokens_are_a_mask_of_squares(fake_kernel):
    fake_kernel("line", sdpa_mask)
    bounds = torch.tensor([0, 2, 5, 6, 10], dtype=torch.int32)  # rows of 2 + 3 and 1 + 4 tokens
    mask = torch.stack(
        [torch.block_diag(torch.ones(one, one), torch.ones(other, other)) for one, other in ((2, 3), (1, 4))]
    )[:, None].bool()
    for is_causal in (False, True):
        expected = weights_under(mask.tril() if is_causal else mask, queries=5, keys=5)
        module = LoneAttention("line", is_causal=is_causal)
        assert_equal(attention_maps(module, call_of(5, 5, bounds)), [expected])


def test_sdpa_without_a_mask_is_causal_where_the_module_is_and_a_single_query_sees_all():
    causal = torch.ones(5, 8, dtype=torch.bool).tril()[None, None]
    for queries, expected in ((5, causal), (1, torch.ones(1, 1, 1, 8, dtype=torch.bool))):
        module = LoneAttention("sdpa", is_causal=True)
        call = call_of(queries, 8, None)
        (weights,) = attention_maps(module, call)
        torch.testing.assert_close(weights, weights_under(expected, queries=queries, keys=8))
        outputs = weights @ call["key"].repeat_interleave(2, dim=1)
        torch.testing.assert_close(module(**call)[0].transpose(1, 2), outputs)


@pytest.mark.parametrize("mask", [None, torch.ones(2, 5, 5)])
def test_a_kernel_that_hides_its_mask_is_refused(fake_kernel, mask):
    fake_kernel("secretive", None)
    with pytest.raises(ValueError, match=r"^attn_implementation \(secretive\) must say who may look at whom, "):
        attention_maps(LoneAttention("secretive"), call_of(5, 5, mask))


def test_a_kernel_that_changes_the_formula_is_refused(fake_kernel):
    fake_kernel("capped", sdpa_mask)
    with pytest.raises(ValueError, match=r"^softcap \(float\) must be None, as the written-out formula has none; "):
        attention_maps(LoneAttention("capped", softcap=30.0), call_of(5, 5, None))
