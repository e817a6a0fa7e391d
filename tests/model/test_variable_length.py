"""Texts as one line of tokens, packed or with padding left out: on a CPU by groups, on CUDA by torch's kernel."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DynamicCache

from hf_minilm import (
    MiniLMForCausalLM,
    MiniLMForSequenceClassification,
    MiniLMForTokenClassification,
    MiniLMModel,
)
from hf_minilm.model import variable_length

POSITIONS = torch.tensor([[*range(5), *range(1), *range(7)], [*range(4), *range(9)]])


def formula_in_place_of_the_kernel(query, key, value, bounds, key_bounds, longest, longest_key, *, scale, window_size):
    """Attention inside each stretch between bounds, one after another; a token sees `window_size` to either side."""
    assert torch.equal(bounds, key_bounds)
    assert bounds.dtype == torch.int32
    assert (bounds.diff() <= longest).all()
    outputs = []
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        q, k, v = (tensor[start:stop].transpose(0, 1) for tensor in (query, key, value))  # [H, L, D]
        distances = torch.arange(stop - start)[None] - torch.arange(stop - start)[:, None]
        left, right = (len(query) if size < 0 else size for size in window_size)
        seen = (distances >= -left) & (distances <= right)
        weights = (q @ k.transpose(1, 2) * scale).masked_fill(~seen, float("-inf")).softmax(-1)
        outputs.append((weights @ v).transpose(0, 1))
    return torch.cat(outputs)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("layers", [{}, {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["packed", "whole", "right", "left", "both"])
def test_a_line_of_tokens_gives_what_rows_give_forward_and_backward(
    make_model: Callable, draw_tokens: Callable, device: str, kind: str, is_causal: bool, layers: dict
) -> None:
    inputs = {"input_ids": draw_tokens(2, 13)}
    counted = torch.ones(2, 13)
    if kind == "packed":
        inputs["position_ids"] = POSITIONS
    if kind in ("right", "both"):
        counted[0, 9:] = 0
    if kind in ("left", "both"):
        counted[1, :4] = 0
    if kind in ("right", "left", "both"):
        inputs["attention_mask"] = counted.long()
    results = []
    # The kernel computes in half precision only.
    dtype, tolerance = (torch.bfloat16, 3e-2) if device == "cuda" else (torch.float32, 1e-5)
    for attention in ("sdpa", "minilm_varlen"):
        model = make_model(MiniLMModel, attention=attention, is_causal=is_causal, hidden_size=32, **layers)
        model = model.to(device, dtype)
        outputs = model(**{name: tensor.to(device) for name, tensor in inputs.items()}).last_hidden_state.float()
        weights = torch.linspace(-1, 1, outputs.numel()).view_as(outputs) * counted[..., None]
        (outputs * weights.to(device)).sum().backward()
        results.append(
            [(outputs.cpu() * counted[..., None]).detach(), *(p.grad.float().cpu() for p in model.parameters())]
        )
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=tolerance * 5, rtol=tolerance * 10)


def test_bounds_lie_where_positions_restart_and_where_padding_begins() -> None:
    bounds = variable_length.sequence_bounds(
        2,
        4,
        sequence_ids=torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]),
        attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        device=torch.device("cpu"),
    )
    assert bounds.tolist() == [0, 2, 4, 7, 8]


def test_padding_between_the_tokens_of_a_sequence_is_refused_and_between_two_is_not() -> None:
    mask, options = torch.tensor([[1, 0, 1, 1]]), {"device": torch.device("cpu")}
    apart = torch.tensor([[0, 0, 1, 1]])
    found = variable_length.sequence_bounds(1, 4, sequence_ids=apart, attention_mask=mask, **options)
    assert found.tolist() == [0, 1, 2, 4]
    with pytest.raises(ValueError, match=r"runs of tokens in a sequence: 2\) must have the tokens of a"):
        variable_length.sequence_bounds(1, 4, sequence_ids=None, attention_mask=mask, **options)


def test_queries_and_keys_in_float32_are_read_in_the_type_of_the_values() -> None:
    query, key, value = torch.randn(3, 2, 2, 5, 8).unbind()
    module, half = SimpleNamespace(is_causal=True), value.bfloat16()
    found, _ = variable_length.variable_length_attention(module, query, key, half, None, scaling=0.4)
    same = variable_length.variable_length_attention(module, query.bfloat16(), key.bfloat16(), half, None, scaling=0.4)
    assert torch.equal(found, same[0])


def test_a_direction_that_is_asked_for_in_a_call_counts(make_model: Callable, draw_tokens: Callable) -> None:
    tokens, found = draw_tokens(2, 9), []
    for attention in ("sdpa", "minilm_varlen"):
        model = make_model(MiniLMForCausalLM, attention=attention).eval()
        with torch.no_grad():
            found.append(model(tokens, is_causal=False, use_cache=False).logits)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[0], model(tokens).logits)


@pytest.mark.parametrize("model_class", [MiniLMForCausalLM, MiniLMModel])
def test_a_window_is_as_wide_in_the_direction_that_a_call_asks_for(
    make_model: Callable, draw_tokens: Callable, model_class
) -> None:
    tokens, found = draw_tokens(2, 9), []
    sliding = {"layer_types": ["sliding_attention"] * 2, "sliding_window": 3}
    for attention in ("sdpa", "minilm_varlen"):
        model = make_model(model_class, attention=attention, **sliding).eval()
        is_causal = not model.config.is_causal
        with torch.no_grad():
            found.append(model(tokens, is_causal=is_causal, **({"use_cache": False} if not is_causal else {}))[0])
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[0], model(tokens)[0])


def test_another_device_than_a_cpu_or_a_gpu_is_refused(make_model: Callable) -> None:
    model = make_model(MiniLMModel, attention="minilm_varlen").to("meta")
    with pytest.raises(ValueError, match=r"device \(meta\) must be a CPU or a CUDA GPU with minilm_varlen; use sdpa"):
        model(torch.ones(2, 9, dtype=torch.long, device="meta"))


@pytest.mark.parametrize(("capability", "is_known"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_a_gpu_that_the_kernel_does_not_know_is_refused(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], is_known: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(variable_length, "_kernel", lambda: lambda query, *_, **__: query)
    variable_length._compute_capability.cache_clear()
    with FakeTensorMode():  # tensors of a GPU, without their numbers and without the GPU
        query = torch.empty(2, 4, 9, 8, dtype=torch.float16, device="cuda")
        bounds = torch.empty(4, dtype=torch.int32, device="cuda")
        arguments = SimpleNamespace(is_causal=False), query, query, query, bounds
        if is_known:
            assert variable_length.variable_length_attention(*arguments, scaling=1.0)[0].shape == (2, 9, 4, 8)
        else:
            with pytest.raises(ValueError, match=r"compute capability of the GPU \(7.5\) must be 8.0 or later"):
                variable_length.variable_length_attention(*arguments, scaling=1.0)
    variable_length._compute_capability.cache_clear()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # until torch 2.12
def test_norms_of_queries_and_keys_train_under_autocast(make_model: Callable, draw_tokens: Callable) -> None:
    found = []
    for attention in ("sdpa", "minilm_varlen"):
        model = make_model(MiniLMModel, attention=attention, hidden_size=32, qk_norm=True).cuda()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            outputs = model(draw_tokens(2, 13).cuda(), position_ids=POSITIONS.cuda()).last_hidden_state
        found.append(outputs.detach().float().cpu())
    torch.testing.assert_close(*found, atol=5e-2, rtol=5e-2)


def test_what_the_kernel_cannot_do_is_refused(make_model: Callable, draw_tokens: Callable) -> None:
    model = make_model(MiniLMForCausalLM, attention="minilm_varlen")
    assert model(draw_tokens(1, 4)).past_key_values is None
    cache = DynamicCache(config=model.config)
    model(draw_tokens(1, 4), past_key_values=cache)
    with pytest.raises(ValueError, match="generate with use_cache=False, or use sdpa"):
        model(draw_tokens(1, 4), past_key_values=cache)
    whole = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="with minilm_varlen, which knows no cache and no mask of its own") as refused:
        model(draw_tokens(1, 4), attention_mask=whole)
    assert "\n" not in str(refused.value)
    dropping = make_model(MiniLMModel, attention="minilm_varlen", attention_dropout=0.1).train()
    with pytest.raises(ValueError, match=r"attention_dropout \(0.1\) must be 0 with minilm_varlen"):
        dropping(draw_tokens(1, 4))
    biased = make_model(MiniLMModel, attention="minilm_varlen", position_embedding="alibi")
    with pytest.raises(ValueError, match=r"attn_implementation \(minilm_varlen\) must add the position scheme's bias"):
        biased(draw_tokens(1, 4))


@pytest.mark.parametrize("window_size", [(-1, -1), (-1, 0), (2, 0), (2, 2)])
def test_groups_of_similar_length_give_what_the_formula_gives_one_sequence_after_another(window_size) -> None:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([5, 1, 19, 5, 7, 18, 2, 40])
    bounds = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    line = [torch.randn(int(lengths.sum()), 3, 4, generator=generator) for _ in range(3)]
    settings = {"scale": 0.5, "window_size": window_size}
    found = variable_length.grouped_attention(*line, bounds, bounds, 40, 40, **settings)
    torch.testing.assert_close(found, formula_in_place_of_the_kernel(*line, bounds, bounds, 40, 40, **settings))


@pytest.mark.parametrize("window_size", [(-1, -1), (2, 0)])
def test_groups_in_bf16_have_the_values_and_gradients_of_the_formula_in_float32(window_size) -> None:
    generator = torch.Generator().manual_seed(3)
    longest = variable_length.LONGEST_TRAINED_BY_FORMULA
    lengths = torch.tensor([7, 1, 8, longest, longest + 1])
    bounds = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    drawn = [torch.randn(int(lengths.sum()), 2, 4, generator=generator).bfloat16() for _ in range(4)]
    settings = {"scale": 0.5, "window_size": window_size}
    results = []
    for attention, dtype in (
        (variable_length.grouped_attention, torch.bfloat16),
        (formula_in_place_of_the_kernel, torch.float32),
    ):
        *line, upstream = (tensor.detach().to(dtype) for tensor in drawn)
        line = [tensor.requires_grad_() for tensor in line]
        outputs = attention(*line, bounds, bounds, longest + 1, longest + 1, **settings)
        outputs.backward(upstream)
        results.append([outputs.float(), *(tensor.grad.float() for tensor in line)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=3e-2, rtol=3e-2)


def test_a_group_is_of_similar_lengths_and_all_sequences_are_in_one() -> None:
    bounds = torch.tensor([0, 50, 90, 100, 101, 105, 150])
    groups = variable_length.groups_of_similar_length(bounds)
    assert [lengths.tolist() for _, lengths in groups] == [[50, 45, 40], [10], [4, 1]]
    assert [starts.tolist() for starts, _ in groups] == [[0, 105, 50], [90], [101, 100]]


def padded_batch(draw_tokens: Callable) -> dict[str, torch.Tensor]:
    attention_mask = torch.ones(4, 12, dtype=torch.long)
    for row, length in enumerate((12, 3, 7, 1)):
        attention_mask[row, length:] = 0
    return {"input_ids": draw_tokens(4, 12), "attention_mask": attention_mask}


def test_no_layer_sees_the_padding_of_a_batch(make_model: Callable, draw_tokens: Callable) -> None:
    model, seen = make_model(MiniLMModel, attention="minilm_varlen"), []
    model.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    outputs = model(**padded_batch(draw_tokens)).last_hidden_state
    assert seen == [(1, 12 + 3 + 7 + 1, model.config.hidden_size)]
    assert outputs.shape == (4, 12, model.config.hidden_size)
    assert not outputs[1, 3:].any()


def test_hidden_states_come_as_rows(make_model: Callable, draw_tokens: Callable) -> None:
    batch = padded_batch(draw_tokens)
    expected, found = (
        make_model(MiniLMModel, attention=attention)(**batch, output_hidden_states=True).hidden_states
        for attention in ("sdpa", "minilm_varlen")
    )
    is_token = batch["attention_mask"].bool()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours[is_token], theirs[is_token], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model_class", [MiniLMForSequenceClassification, MiniLMForTokenClassification])
def test_a_fine_tuning_step_without_padding_gives_the_loss_and_gradient_of_padded_rows(
    make_model: Callable, draw_tokens: Callable, model_class: type
) -> None:
    batch, results = padded_batch(draw_tokens), []
    labels = torch.tensor([0, 1, 1, 0])
    if model_class is MiniLMForTokenClassification:
        labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"] % 2, -100)
    for attention in ("sdpa", "minilm_varlen"):
        model = make_model(model_class, attention=attention).train()
        loss = model(**batch, labels=labels).loss
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
