"""Packed rows as one line of tokens: the bookkeeping is tested with the formula in place of the CUDA kernel."""

from collections.abc import Callable

import pytest
import torch
from transformers import DynamicCache

from hf_minilm import MiniLMForCausalLM, MiniLMModel
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


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variable_length, "_kernel", lambda: formula_in_place_of_the_kernel)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        request.getfixturevalue("on_a_cpu")
    return request.param


@pytest.mark.parametrize("layers", [{}, {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kind", ["packed", "whole", "right", "left"])
def test_a_line_of_tokens_gives_what_rows_give_forward_and_backward(
    make_model: Callable, draw_tokens: Callable, device: str, kind: str, is_causal: bool, layers: dict
) -> None:
    inputs = {"input_ids": draw_tokens(2, 13)}
    counted = torch.ones(2, 13)
    if kind == "packed":
        inputs["position_ids"] = POSITIONS
    if kind in ("right", "left"):
        counted[0, slice(9, None) if kind == "right" else slice(None, 4)] = 0
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


@pytest.mark.usefixtures("on_a_cpu")
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
