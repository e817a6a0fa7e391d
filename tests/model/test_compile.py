"""The model compiles as one graph, forward, backward and a step of generation."""

import pytest
import torch
from transformers import StaticCache

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM

SCHEMES = ["none", "learned", "sinusoidal", "rope", "alibi", "relative_bias"]


@pytest.fixture(autouse=True)
def _compiled_anew():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForCausalLM])
def test_forward_and_backward_are_one_graph_and_give_the_same(make_model, draw_tokens, model_class, scheme):
    tokens, results = draw_tokens(2, 9), []
    for compiles in (False, True):
        model = make_model(model_class, attention="sdpa", position_embedding=scheme)
        # What is traced is tested here, and not the compiler behind it, which would take a minute for each case.
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiles else model
        logits = run(tokens, use_cache=False).logits
        (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
        results.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_a_step_of_generation_with_a_static_cache_is_one_graph(make_model, draw_tokens, scheme):
    model = make_model(MiniLMForCausalLM, attention="sdpa", position_embedding=scheme)
    tokens = draw_tokens(2, 9)
    expected = model(tokens, use_cache=False).logits[:, 6:]
    cache = StaticCache(config=model.config, max_cache_len=16)
    model(tokens[:, :6], past_key_values=cache)
    step = torch.compile(model, fullgraph=True, backend="aot_eager")
    steps = [step(tokens[:, place : place + 1], past_key_values=cache).logits for place in range(6, 9)]
    torch.testing.assert_close(torch.cat(steps, dim=1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForCausalLM])
def test_compiled_code_gives_what_the_model_gives(make_model, draw_tokens, model_class):
    model = make_model(model_class, attention="sdpa")
    tokens = draw_tokens(2, 9)
    expected = model(tokens, use_cache=False).logits
    compiled = torch.compile(model, fullgraph=True)(tokens, use_cache=False).logits
    torch.testing.assert_close(compiled, expected, atol=2e-5, rtol=1e-4)
