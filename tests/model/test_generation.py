import pytest
import torch
from transformers import DynamicCache

from hf_minilm import MiniLMForCausalLM

SCHEMES = ["none", "learned", "sinusoidal", "rope"]


def greedily(model: torch.nn.Module, prompt: torch.Tensor, *, new_tokens: int) -> list[int]:
    tokens = prompt[None]
    for _ in range(new_tokens):
        logits = model(tokens, use_cache=False).logits
        tokens = torch.cat((tokens, logits[:, -1:].argmax(-1)), dim=1)
    return tokens[0, len(prompt) :].tolist()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_a_left_padded_batch_generates_what_each_prompt_generates_alone_with_and_without_cache(
    make_model, draw_tokens, scheme, attention
):
    # Untied, or the most likely next token is mostly the last one again.
    fields = {"position_embedding": scheme, "tie_word_embeddings": False}
    model = make_model(MiniLMForCausalLM, attention=attention, bos_token_id=1, **fields)
    prompts = [draw_tokens(length, seed=length) for length in (2, 5, 7)]
    expected = [greedily(model, prompt, new_tokens=6) for prompt in prompts]
    assert len({token for row in expected for token in row}) > 3

    input_ids, mask = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        input_ids[row, -len(prompt) :], mask[row, -len(prompt) :] = prompt, 1
    for use_cache in (True, False):
        generated = model.generate(
            input_ids, attention_mask=mask, max_new_tokens=6, do_sample=False, use_cache=use_cache, pad_token_id=0
        )
        assert generated[:, 7:].tolist() == expected


@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_logits_from_a_cache_equal_those_of_the_whole_sequence(make_model, draw_tokens, scheme):
    model = make_model(MiniLMForCausalLM, attention="sdpa", position_embedding=scheme)
    tokens = draw_tokens(2, 11)
    cache, pieces = DynamicCache(config=model.config), []
    for piece in tokens.split([4, 1, 3, 1, 2], dim=1):
        pieces.append(model(piece, past_key_values=cache).logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens).logits, atol=1e-5, rtol=1e-5)


def test_only_the_logits_that_are_asked_for_are_computed(make_model, draw_tokens):
    model = make_model(MiniLMForCausalLM)
    tokens = draw_tokens(2, 9)
    every = model(tokens).logits
    rows, mask = torch.tensor([[0, 3], [8, 1]]), tokens % 2 == 0
    asked = {
        0: every,
        2: every[:, -2:],
        torch.tensor([4, 0]): every[:, [4, 0]],
        rows: torch.stack((every[0, [0, 3]], every[1, [8, 1]])),
        mask: every[mask],
    }
    for kept, expected in asked.items():
        torch.testing.assert_close(model(tokens, logits_to_keep=kept).logits, expected)


def test_beam_search_and_sampling_run(make_model, draw_tokens):
    model = make_model(MiniLMForCausalLM, bos_token_id=1)
    tokens = draw_tokens(2, 3)
    mask = torch.ones_like(tokens)
    beams = model.generate(tokens, attention_mask=mask, num_beams=3, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert beams.shape == (2, 7)
    torch.manual_seed(0)
    assert model.generate(tokens, attention_mask=mask, do_sample=True, max_new_tokens=4, pad_token_id=0).shape == (2, 7)
