import pytest
import torch
from transformers import ContinuousBatchingConfig, DynamicCache, GenerationConfig

from hf_minilm import MiniLMForCausalLM

SCHEMES = ["none", "learned", "sinusoidal", "rope", "alibi", "relative_bias"]


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


@pytest.fixture
def decoder(make_model):
    """A decoder whose next tokens vary: untied, or the likeliest next token is mostly the last one again."""

    def make(scheme: str = "rope", **fields):
        fields = {"position_embedding": scheme, "tie_word_embeddings": False, "bos_token_id": 1, **fields}
        return make_model(MiniLMForCausalLM, attention="sdpa", **fields)

    return make


def generate(model: torch.nn.Module, prompt: torch.Tensor, **settings: object) -> list[list[int]]:
    mask = torch.ones_like(prompt)
    common = {"attention_mask": mask, "max_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    return model.generate(prompt, **{**common, **settings}).tolist()


@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_a_static_cache_generates_what_a_growing_one_does(decoder, draw_tokens, scheme):
    model, prompt = decoder(scheme), draw_tokens(2, 7)
    expected = generate(model, prompt)
    assert generate(model, prompt, cache_implementation="static", disable_compile=True) == expected
    assert generate(model, prompt, use_cache=False) == expected


@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_an_assistant_and_a_look_into_the_prompt_change_the_speed_and_not_the_text(decoder, draw_tokens, scheme):
    model, prompt = decoder(scheme), draw_tokens(1, 12)
    expected = generate(model, prompt)
    assistant = decoder(scheme, num_hidden_layers=1)
    assert generate(model, prompt, assistant_model=assistant) == expected
    assert generate(model, prompt, prompt_lookup_num_tokens=3) == expected


@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_beams_find_the_same_texts_with_and_without_a_cache(decoder, draw_tokens, scheme):
    model, prompt = decoder(scheme), draw_tokens(2, 5)
    beams = {"num_beams": 3, "num_return_sequences": 2}
    assert generate(model, prompt, **beams) == generate(model, prompt, **beams, use_cache=False)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_activation_checkpointing_gives_the_same_gradients(decoder, draw_tokens, scheme, reentrant):
    tokens, gradients = draw_tokens(2, 9), []
    for checkpointing in (False, True):
        model = decoder(scheme).train()
        if checkpointing:
            # transformers 5.17 knows it by its older name.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": reentrant})
        model(tokens, labels=tokens).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("scheme", ["none", "learned", "sinusoidal", "rope"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_continuous_batching_generates_what_each_prompt_generates_alone(decoder, draw_tokens, scheme, attention):
    model = decoder(scheme)
    model.set_attn_implementation(attention)
    prompts = [draw_tokens(length, seed=length) for length in (3, 7, 5)]
    expected = [greedily(model, prompt, new_tokens=6) for prompt in prompts]
    outputs = model.generate_batch(
        [prompt.tolist() for prompt in prompts],
        generation_config=GenerationConfig(max_new_tokens=6, do_sample=False, eos_token_id=-1, pad_token_id=0),
        # Its cache takes most of the machine's memory unless it is told how much.
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=32),
    )
    assert [outputs[key].generated_tokens for key in sorted(outputs)] == expected


@pytest.mark.parametrize("scheme", ["alibi", "relative_bias"])
def test_a_bias_is_refused_in_continuous_batching_rather_than_dropped(decoder, draw_tokens, scheme):
    with pytest.raises(ValueError, match="must not add to the scores in continuous batching"):
        decoder(scheme)(draw_tokens(1, 5), use_cache=False, cache=object())
