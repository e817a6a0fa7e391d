"""The encoder-decoder writes the same with every cache and without one, and compiles."""

import pytest
import torch
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from hf_minilm import MiniLMForConditionalGeneration, MiniLMSeq2SeqConfig

SCHEMES = ["none", "learned", "sinusoidal", "rope", "alibi", "relative_bias"]
COMPILED = ["learned", "rope", "relative_bias"]
"""One scheme for each place in which positions are told."""
SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}
LAYERS = {
    "full": {"num_hidden_layers": 2},
    "mixed": SLIDING,
    "sliding": {**SLIDING, "layer_types": ["sliding_attention"] * 2},
}
NARROW = {"hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 1, "vocab_size": 47}
STATIC = {"cache_implementation": "static", "disable_compile": True}


@pytest.fixture
def build(make_config):
    """A model whose next tokens vary: untied, or the likeliest next token is mostly the last one again."""

    def make(scheme: str = "rope", *, attention: str = "sdpa", **fields) -> nn.Module:
        encoder = make_config(position_embedding=scheme, **fields)
        decoder = make_config(position_embedding=scheme, **{**fields, **NARROW})
        joined = {"share_embeddings": False, "tie_word_embeddings": False, "eos_token_id": 5, "bos_token_id": 1}
        torch.manual_seed(3)
        model = MiniLMForConditionalGeneration(MiniLMSeq2SeqConfig(encoder=encoder, decoder=decoder, **joined))
        model.set_attn_implementation(attention)
        return model.eval()

    return make


@pytest.fixture
def sources(draw_tokens) -> dict[str, torch.Tensor]:
    """Sources of 11, 2 and 6 tokens, padded on the right, on the left, and on both sides."""
    mask = torch.ones(3, 11, dtype=torch.long)
    mask[1, 2:], mask[2, :4], mask[2, 10:] = 0, 0, 0
    return {"input_ids": draw_tokens(3, 11) * mask, "attention_mask": mask}


def greedily(model: nn.Module, source: torch.Tensor, *, new_tokens: int) -> list[int]:
    tokens = torch.tensor([[1]])
    for _ in range(new_tokens):
        logits = model(source[None], decoder_input_ids=tokens, use_cache=False).logits
        tokens = torch.cat((tokens, logits[:, -1:].argmax(-1)), dim=1)
        if tokens[0, -1] == 5:
            break
    return tokens[0].tolist()


def generate(model: nn.Module, sources: dict[str, torch.Tensor], **settings) -> list[list[int]]:
    return model.generate(**sources, do_sample=False, max_new_tokens=9, **settings).tolist()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_a_padded_batch_generates_what_each_source_generates_alone_with_every_cache(
    build, sources, scheme, layers, attention
):
    if scheme in ("learned", "sinusoidal"):
        # A table counts the source's positions from its row's beginning: padding on the left moves them, as in BART.
        sources = {name: tensor[:2] for name, tensor in sources.items()}
    model = build(scheme, attention=attention, **LAYERS[layers])
    rows = zip(sources["input_ids"], sources["attention_mask"].bool(), strict=True)
    expected = [greedily(model, row[mask], new_tokens=9) for row, mask in rows]
    assert len({token for row in expected for token in row}) > 3
    length = max(len(row) for row in expected)
    expected = [row + [0] * (length - len(row)) for row in expected]
    for settings in ({}, {"use_cache": False}, STATIC):
        assert generate(model, sources, **settings) == expected, settings


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_beams_find_the_same_texts_with_every_cache(build, sources, scheme, layers):
    model = build(scheme, **LAYERS[layers])
    beams = {"num_beams": 3, "num_return_sequences": 2, "no_repeat_ngram_size": 2}
    expected = generate(model, sources, **beams, use_cache=False)
    assert len(expected) == 6
    assert generate(model, sources, **beams) == expected
    assert generate(model, sources, **beams, **STATIC) == expected


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_logits_from_a_cache_equal_those_of_the_whole_target(build, sources, draw_tokens, scheme, layers):
    model = build(scheme, **LAYERS[layers])
    target = draw_tokens(3, 11, seed=5) % 47
    expected = model(**sources, decoder_input_ids=target, use_cache=False)
    assert expected.past_key_values is None
    cache, pieces = None, []
    for piece in target.split([4, 1, 3, 1, 2], dim=1):
        outputs = model(**sources, decoder_input_ids=piece, past_key_values=cache)
        cache = outputs.past_key_values
        pieces.append(outputs.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected.logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_source_is_read_once(build, sources, draw_tokens):
    model = build()
    target = draw_tokens(3, 7, seed=5) % 47
    first = model(**sources, decoder_input_ids=target[:, :4])
    given = {"encoder_outputs": (first.encoder_last_hidden_state * 0,), "attention_mask": sources["attention_mask"]}
    rest = model(**given, decoder_input_ids=target[:, 4:], past_key_values=first.past_key_values).logits
    expected = model(**sources, decoder_input_ids=target).logits[:, 4:]
    torch.testing.assert_close(rest, expected, atol=1e-5, rtol=1e-5)


def test_a_cache_is_returned_outside_training_and_not_for_packed_targets(build, draw_tokens):
    model = build()
    source, target = draw_tokens(1, 5), draw_tokens(1, 4, seed=5) % 47
    assert isinstance(model(source, decoder_input_ids=target).past_key_values, EncoderDecoderCache)
    packed = {"position_ids": torch.tensor([[0, 1, 0, 1, 2]]), "decoder_position_ids": torch.tensor([[0, 1, 0, 1]])}
    assert model(source, decoder_input_ids=target, **packed).past_key_values is None
    assert model.train()(source, decoder_input_ids=target).past_key_values is None


@torch.no_grad()
def test_a_cache_of_ones_own_is_used(build, sources):
    model = build()
    cache = EncoderDecoderCache(DynamicCache(config=model.config.decoder), DynamicCache())
    assert generate(model, sources, past_key_values=cache) == generate(model, sources)


@torch.no_grad()
def test_sampling_runs(build, sources):
    assert build().generate(**sources, do_sample=True, max_new_tokens=4, min_new_tokens=4).shape == (3, 5)


@pytest.fixture
def _compiled_anew():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_compiled_anew")
@pytest.mark.parametrize("scheme", COMPILED)
def test_forward_and_backward_are_one_graph_and_give_the_same(build, sources, draw_tokens, scheme):
    target, results = draw_tokens(3, 7, seed=5) % 47, []
    for compiles in (False, True):
        model = build(scheme)
        # What is traced is tested here, and not the compiler behind it, which would take a minute for each case.
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiles else model
        logits = run(**sources, decoder_input_ids=target, use_cache=False).logits
        (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
        results.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, atol=2e-5, rtol=1e-4)


@pytest.mark.usefixtures("_compiled_anew")
@pytest.mark.parametrize("scheme", COMPILED)
@torch.no_grad()
def test_a_step_of_generation_with_a_static_cache_is_one_graph(build, sources, draw_tokens, scheme):
    model = build(scheme)
    target = draw_tokens(3, 9, seed=5) % 47
    expected = model(**sources, decoder_input_ids=target, use_cache=False)
    caches = [StaticCache(config=model.config.decoder, max_cache_len=length) for length in (16, 11)]
    given = {
        "encoder_outputs": (expected.encoder_last_hidden_state,),
        "attention_mask": sources["attention_mask"],
        "past_key_values": EncoderDecoderCache(*caches),
    }
    model(**given, decoder_input_ids=target[:, :6])
    step = torch.compile(model, fullgraph=True, backend="aot_eager")
    steps = [step(**given, decoder_input_ids=target[:, place : place + 1]).logits for place in range(6, 9)]
    torch.testing.assert_close(torch.cat(steps, dim=1), expected.logits[:, 6:], atol=1e-5, rtol=1e-5)
