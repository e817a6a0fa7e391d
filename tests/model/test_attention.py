import math

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_minilm import MiniLMModel
from hf_minilm.model.attention import masked_softmax, refuse_dropped_bias, written_out_attention

FUNCTIONS = {"eager": written_out_attention, "sdpa": ALL_ATTENTION_FUNCTIONS["sdpa"]}


class Module(torch.nn.Module):
    is_causal = False
    num_key_value_groups = 1


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(("causal", "expected"), [(False, [2.0, 2.0, 2.0]), (True, [6.0, 10.0, 2.0])])
def test_three_tokens_give_what_the_formula_gives_by_hand(function, causal, expected):
    # Scores 0, ln 2 and ln 3 for every query: weights 1/6, 2/6, 3/6, and 1/3, 2/3 where only two tokens are seen.
    query = torch.ones(1, 1, 3, 1)
    key = torch.tensor([0.0, math.log(2), math.log(3)]).view(1, 1, 3, 1)
    value = torch.tensor([6.0, 12.0, -6.0]).view(1, 1, 3, 1)
    mask = torch.ones(3, 3, dtype=torch.bool).tril()[None, None] if causal else None
    outputs, _ = function(Module(), query, key, value, mask, scaling=1.0)
    torch.testing.assert_close(outputs.flatten(), torch.tensor(expected))


def test_the_weights_of_a_query_sum_to_one_and_follow_the_scaled_scores():
    query, key = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.0], [0.0, -1.0], [2.0, 2.0]])
    _, weights = written_out_attention(Module(), query[None, None], key[None, None], key[None, None], None, scaling=0.5)
    exponentials = [math.exp(0.5 * score) for score in (5.0, -1.0, 8.0)]
    expected = torch.tensor([value / sum(exponentials) for value in exponentials])
    torch.testing.assert_close(weights.flatten(), expected)


def test_a_position_bias_is_added_to_the_scores_after_their_scaling():
    query, key = torch.full((1, 1, 1, 1), 2.0), torch.tensor([1.0, 0.0]).view(1, 1, 2, 1)
    bias = torch.tensor([0.0, math.log(9)]).view(1, 1, 1, 2)
    _, weights = written_out_attention(
        Module(), query, key, key, None, scaling=math.log(3) / 2, position_bias=bias
    )  # scores ln 3 and ln 9
    torch.testing.assert_close(weights.flatten(), torch.tensor([0.25, 0.75]))


def test_a_float_mask_is_added_and_its_lowest_value_forbids():
    scores = torch.tensor([[0.0, 0.0, 5.0]])
    mask = torch.tensor([[0.0, math.log(3), torch.finfo(torch.float32).min]])
    torch.testing.assert_close(masked_softmax(scores, mask), torch.tensor([[0.25, 0.75, 0.0]]))


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_query_that_may_look_at_nothing_gets_zeros_and_finite_gradients(function):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4, generator=generator, requires_grad=True) for _ in range(3))
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask[1, :, 3] = False
    outputs, _ = function(Module(), query, key, value, mask, scaling=0.5)
    outputs.square().sum().backward()
    assert outputs[1, 3].eq(0).all()
    assert outputs[0].ne(0).all()
    for tensor in (query, key, value):
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_grouped_heads_equal_heads_whose_keys_and_values_are_written_twice(function):
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2, 6, 5, 4, generator=generator)
    key, value = (torch.randn(2, 3, 5, 4, generator=generator) for _ in range(2))
    grouped, whole = Module(), Module()
    grouped.num_key_value_groups = 2
    twice = [tensor[:, [0, 0, 1, 1, 2, 2]] for tensor in (key, value)]
    expected, _ = function(whole, query, *twice, None, scaling=0.5)
    outputs, _ = function(grouped, query, key, value, None, scaling=0.5)
    torch.testing.assert_close(outputs, expected)


def inputs_of(kind: str, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    length = input_ids.shape[1]
    if kind == "packed":
        rows = [[*range(4), *range(length - 4)], [*range(1), *range(6), *range(length - 7)], [*range(length)]]
        return {"input_ids": input_ids, "position_ids": torch.tensor(rows)}
    mask = torch.ones_like(input_ids)
    if kind == "right":
        mask[1, -3:], mask[2, -5:] = 0, 0
    if kind == "left":
        mask[1, :3], mask[2, :5] = 0, 0
    return {"input_ids": input_ids, "attention_mask": mask}


@pytest.mark.parametrize("scheme", ["rope", "alibi", "relative_bias"])
@pytest.mark.parametrize("key_value_heads", [1, 4])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kind", ["whole", "right", "left", "packed"])
def test_sdpa_equals_the_written_out_attention_forward_and_backward(
    make_model, draw_tokens, kind, is_causal, key_value_heads, scheme
):
    inputs = inputs_of(kind, draw_tokens(3, 11))
    results = []
    for attention in ("eager", "sdpa"):
        model = make_model(
            MiniLMModel,
            attention=attention,
            is_causal=is_causal,
            num_key_value_heads=key_value_heads,
            qk_norm=True,
            position_embedding=scheme,
        )
        outputs = model(**inputs).last_hidden_state
        weights = torch.linspace(-1, 1, outputs.numel()).view_as(outputs)
        if "attention_mask" in inputs:
            weights = weights * inputs["attention_mask"][..., None]
        (outputs * weights).sum().backward()
        results.append([outputs.detach(), *(parameter.grad for parameter in model.parameters())])
    for eager, sdpa in zip(*results, strict=True):
        torch.testing.assert_close(sdpa, eager, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_later_token_moves_no_earlier_output_of_a_causal_model(make_model, draw_tokens, attention):
    model = make_model(MiniLMModel, attention=attention, is_causal=True)
    input_ids = draw_tokens(2, 9)
    changed = input_ids.clone()
    changed[:, 6] = changed[:, 6] % 60 + 1
    before, after = (model(ids).last_hidden_state for ids in (input_ids, changed))
    assert torch.equal(before[:, :6], after[:, :6])
    assert (before[:, 6:] - after[:, 6:]).abs().amax(dim=(0, 2)).gt(1e-4).all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_token_moves_every_output_of_a_bidirectional_model(make_model, draw_tokens, attention):
    model = make_model(MiniLMModel, attention=attention)
    input_ids = draw_tokens(1, 7)
    before = model(input_ids).last_hidden_state
    for place in range(7):
        changed = input_ids.clone()
        changed[:, place] = changed[:, place] % 60 + 1
        assert (before - model(changed).last_hidden_state).abs().amax(dim=-1).gt(1e-5).all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("scheme", ["none", "learned", "sinusoidal", "rope", "alibi", "relative_bias"])
def test_padding_on_either_side_leaves_the_outputs_of_real_tokens_alone(
    make_model, draw_tokens, attention, is_causal, scheme
):
    model = make_model(MiniLMModel, attention=attention, is_causal=is_causal, position_embedding=scheme)
    tokens, padding = draw_tokens(2, 6), torch.zeros(2, 3, dtype=torch.long)
    alone = model(tokens).last_hidden_state
    right = model(
        torch.cat((tokens, padding), dim=1), attention_mask=torch.tensor([[1] * 6 + [0] * 3] * 2)
    ).last_hidden_state[:, :6]
    left_mask = torch.tensor([[0] * 3 + [1] * 6] * 2)
    left = model(
        torch.cat((padding, tokens), dim=1),
        attention_mask=left_mask,
        position_ids=(left_mask.cumsum(-1) - 1).clamp(min=0),
    ).last_hidden_state[:, 3:]
    torch.testing.assert_close(right, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(left, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_left_padding_gives_finite_outputs_at_the_padding_too(make_model, draw_tokens, attention):
    model = make_model(MiniLMModel, attention=attention, is_causal=True)
    mask = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])
    outputs = model(draw_tokens(2, 5), attention_mask=mask).last_hidden_state
    outputs.sum().backward()
    assert outputs.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_eager_attention_returns_the_weights_of_every_layer(make_model, draw_tokens):
    outputs = make_model(MiniLMModel, is_causal=True)(draw_tokens(2, 5), output_attentions=True)
    assert [tuple(weights.shape) for weights in outputs.attentions] == [(2, 4, 5, 5)] * 2
    for weights in outputs.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5))
        assert weights.triu(1).eq(0).all()


def test_an_implementation_that_would_drop_a_bias_is_refused():
    with pytest.raises(
        ValueError, match=r"attn_implementation \(flash_attention_2\) must add the position scheme's bias"
    ):
        refuse_dropped_bias("flash_attention_2")
