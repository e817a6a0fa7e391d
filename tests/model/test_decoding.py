"""The quick way to write gives what transformers' loop gives, and stands aside where it could not."""

import pytest
import torch
from torch import nn
from transformers import DynamicCache, GenerationMixin, LogitsProcessorList

from hf_minilm import MiniLMConfig, MiniLMForCausalLM
from hf_minilm.model import decoding_on_gpu
from hf_minilm.model.attention import Attention
from hf_minilm.model.decoding import FEWEST_NEW_TOKENS, DecodingStep, FastWriting, likeliest, obstacle_to
from hf_minilm.model.decoding_on_gpu import RecordedStep
from hf_minilm.model.layers import Embeddings, FeedForward, Layer
from hf_minilm.model.positions import POSITION_SCHEMES, PositionScheme

SCHEMES = ["none", "learned", "sinusoidal", "rope", "alibi", "relative_bias"]
BERT = {
    "norm_placement": "post",
    "embedding_norm": True,
    "norm_bias": True,
    "feed_forward": "plain",
    "attention_bias": True,
    "feed_forward_bias": True,
    "output_bias": True,
    "position_embedding": "learned",
}
ARCHITECTURES = {
    "defaults": {},
    "modern": {"embedding_norm": True, "first_attention_norm": False, "type_vocab_size": 0},
    "modern decoder": {"norm": "rms_norm", "hidden_act": "silu", "type_vocab_size": 0},
    "bert": BERT,
    "gpt2": {**BERT, "norm_placement": "pre", "embedding_norm": False, "type_vocab_size": 0, "hidden_act": "gelu_new"},
    "tied": {"tie_word_embeddings": True},
    "every head its own key": {"num_key_value_heads": 4},
    "one key head": {"num_key_value_heads": 1, "qk_norm": True, "head_dim": 8},
    "normalised queries": {"qk_norm": True, "norm": "rms_norm", "feed_forward_bias": True},
    "scaled embeddings": {"scale_embeddings": True, "position_embedding": "sinusoidal"},
    "sliding": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4},
    "sliding with biases": {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 5,
        "position_embedding": "relative_bias",
    },
    "partly turned": {"head_dim": 8, "partial_rotary_factor": 0.5},
    "turned by layer": {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 4,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0},
        },
    },
    "alibi": {
        "position_embedding": "alibi",
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 6,
    },
    "relative biases": {"position_embedding": "relative_bias", "num_key_value_heads": 2},
    "dynamic angles": {
        "max_position_embeddings": 12,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 3.0},
    },
}


@pytest.fixture
def decoder(make_model):
    """A decoder whose next tokens vary: untied, or the likeliest next token is mostly the last one again."""

    def make(*, attention: str = "sdpa", **fields):
        fields = {"tie_word_embeddings": False, "bos_token_id": 1, **fields}
        return make_model(MiniLMForCausalLM, attention=attention, **fields)

    return make


@pytest.fixture
def padded(draw_tokens):
    """Three prompts of unequal length, padded on the left, and their mask."""
    tokens, mask = draw_tokens(3, 9), torch.ones(3, 9, dtype=torch.long)
    for row, length in enumerate((4, 9, 7)):
        mask[row, : 9 - length] = 0
    return {"inputs": tokens * mask, "attention_mask": mask}


def write(model: nn.Module, decoding: str, *, seed: int = 0, **settings: object) -> torch.Tensor:
    model.decoding = decoding
    torch.manual_seed(seed)
    return model.generate(**{"max_new_tokens": 25, "do_sample": False, "pad_token_id": 0, **settings})


def assert_both_ways_write_the_same(model: nn.Module, **settings: object) -> torch.Tensor:
    expected = write(model, "plain", **settings)
    assert torch.equal(write(model, "fast", **settings), expected)
    return expected


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_writes_what_transformers_loop_writes(decoder, padded, draw_tokens, name, attention):
    model = decoder(attention=attention, **ARCHITECTURES[name])
    for settings in (padded, {"inputs": draw_tokens(1, 5)}, {"inputs": draw_tokens(2, 3), "max_new_tokens": 2}):
        written = assert_both_ways_write_the_same(model, **settings)
    if name != "tied":
        assert len(set(written[0].tolist())) > 2


def test_a_window_of_one_token_writes_what_is_written_without_a_cache(decoder, padded):
    # Not what transformers' loop writes with one: its cache then keeps all keys, as tensor[-0:] is the whole of it.
    model = decoder(layer_types=["full_attention", "sliding_attention"], sliding_window=1)
    assert torch.equal(write(model, "fast", **padded), write(model, "plain", **padded, use_cache=False))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_writes_what_transformers_loop_writes(decoder, padded, draw_tokens, scheme):
    model = decoder(position_embedding=scheme)
    assert len(assert_both_ways_write_the_same(model, inputs=draw_tokens(2, 7)).unique()) > 5
    assert_both_ways_write_the_same(model, **padded)
    assert_both_ways_write_the_same(model, **padded, do_sample=True)


@pytest.mark.parametrize("build_step", [DecodingStep, RecordedStep])
@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_logits_of_every_step_are_those_of_the_model(decoder, padded, draw_tokens, monkeypatch, name, build_step):
    monkeypatch.setattr(decoding_on_gpu, "SPARE_TOKENS", 3)
    model = decoder(**ARCHITECTURES[name])
    for tokens, mask in ((draw_tokens(2, 20, seed=5), None), (draw_tokens(3, 20), padded["attention_mask"])):
        cache, length = DynamicCache(config=model.config), 9
        whole = torch.ones_like(tokens) if mask is None else torch.cat((mask, mask.new_ones(3, 11)), dim=1)
        positions = (whole.cumsum(1) - 1).clamp(min=0)
        model(tokens[:, :length], whole[:, :length], position_ids=positions[:, :length], past_key_values=cache)
        known = {"past_key_values": cache, "position_ids": positions[:, : length + 1]}
        known["attention_mask"] = None if mask is None else whole[:, : length + 1]
        step = build_step(model, known, longest=14)  # as if too short: the memory grows
        for place in range(length, 20):
            seen, inputs = whole[:, : place + 1], {"position_ids": positions[:, place : place + 1]}
            inputs["attention_mask"] = None if mask is None else seen
            expected = model(tokens[:, place : place + 1], past_key_values=cache, **inputs).logits[:, 0]
            torch.testing.assert_close(step(tokens[:, place]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bfloat16_weights_score_as_the_model_does_but_for_rounding(decoder, draw_tokens, scheme):
    model = decoder(position_embedding=scheme, qk_norm=True).bfloat16()
    tokens = draw_tokens(2, 12)
    with torch.no_grad():
        cache = DynamicCache(config=model.config)
        model(tokens[:, :6], past_key_values=cache)
        step = DecodingStep(model, {"past_key_values": cache, "position_ids": torch.arange(7)[None]}, longest=12)
        for place in range(6, 12):
            expected = model.float()(tokens[:, : place + 1], use_cache=False).logits[:, -1]
            model.bfloat16()
            scored = step(tokens[:, place])
            assert scored.dtype == torch.bfloat16
            torch.testing.assert_close(scored.float(), expected, atol=0.15, rtol=0.05)


def test_an_end_in_the_middle_stops_a_row_and_then_the_batch(decoder, padded):
    model = decoder()
    free = write(model, "plain", **padded)
    ends = [int(free[0, 12]), int(free[1, 15])]
    assert_both_ways_write_the_same(model, **padded, eos_token_id=ends)
    assert_both_ways_write_the_same(model, **padded, eos_token_id=ends[:1])
    written = assert_both_ways_write_the_same(model, inputs=padded["inputs"][1:2], eos_token_id=ends[1], max_length=99)
    assert written.shape[1] < 40


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True},
        {"do_sample": True, "temperature": 0.7, "top_k": 9, "top_p": 0.8, "num_return_sequences": 2},
        {"do_sample": True, "min_p": 0.05, "repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2, "min_new_tokens": 6, "eos_token_id": 7},
        {"bad_words_ids": [[3], [4, 5]], "suppress_tokens": [9, 11]},
        {"guidance_scale": 1.5},
    ],
)
def test_processors_and_sampling_give_the_same_tokens_from_the_same_seed(decoder, padded, settings):
    model = decoder()
    for seed in range(3):
        assert_both_ways_write_the_same(model, **padded, **settings, seed=seed)


def test_token_types_of_the_prompt_go_on(decoder, draw_tokens):
    model, types = decoder(type_vocab_size=3), torch.tensor([[0, 1, 1, 2, 2], [0, 0, 0, 0, 1]])
    with_types = assert_both_ways_write_the_same(model, inputs=draw_tokens(2, 5), token_type_ids=types)
    assert not torch.equal(with_types, write(model, "plain", inputs=draw_tokens(2, 5)))


def test_positions_of_ones_own_go_on(decoder, draw_tokens):
    # Not of rope, under which a shift of all positions changes nothing.
    model, prompt = decoder(position_embedding="learned"), draw_tokens(1, 5)
    moved = assert_both_ways_write_the_same(model, inputs=prompt, position_ids=torch.tensor([[3, 4, 5, 6, 7]]))
    assert not torch.equal(moved, write(model, "plain", inputs=prompt))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks for it by its old name
@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")
@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_virtual_tokens_of_peft_are_left_to_transformers_loop_and_only_while_they_are_there(decoder, padded, kind):
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    classes = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}
    model = decoder(position_embedding="learned", max_position_embeddings=64)
    torch.manual_seed(3)
    adapted = peft.get_peft_model(model, classes[kind](task_type="CAUSAL_LM", num_virtual_tokens=5)).eval()
    settings = {**padded, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    found = adapted.generate(**settings)
    model.decoding = "plain"
    assert torch.equal(found, adapted.generate(**settings))
    model.decoding = "fast"
    with pytest.raises(ValueError, match=r"decoding \(fast\) must have nothing in its way, and somebody else prepares"):
        adapted.generate(**settings)
    assert model.eval().generate(**settings).shape == (3, 21)


def test_a_text_beyond_the_table_of_positions_is_refused_in_the_same_words(decoder, draw_tokens):
    model = decoder(position_embedding="learned", max_position_embeddings=20)
    for decoding in ("plain", "fast"):
        with pytest.raises(ValueError, match=r"sequence length \(21\) must not exceed max_position_embeddings"):
            write(model, decoding, inputs=draw_tokens(1, 5))


class Recorder:
    """Stands for a streamer or a logits processor, and keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[object] = []

    def put(self, tokens: torch.Tensor) -> None:
        self.given.append(tokens.tolist())

    def end(self) -> None:
        self.given.append("end")

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.given.append((input_ids.tolist(), scores.dtype, scores.requires_grad, scores.is_inference()))
        scores[:, ::2] -= 1.0  # in place, as some do
        return scores


def test_streamers_and_processors_are_given_the_same(decoder, draw_tokens):
    model, given = decoder(), []
    for decoding in ("plain", "fast"):
        streamer, processor = Recorder(), Recorder()
        processors = LogitsProcessorList([processor])
        write(model, decoding, inputs=draw_tokens(1, 5), streamer=streamer, logits_processor=processors)
        given.append((streamer.given, processor.given))
    assert given[0] == given[1]
    assert given[1][0][-1] == "end"


def test_a_criterion_of_ones_own_stops(decoder, padded):
    def after(input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return torch.full((len(input_ids),), input_ids.shape[1] >= 17)

    written = assert_both_ways_write_the_same(decoder(), **padded, stopping_criteria=[after])
    assert written.shape[1] == 17


def test_weights_that_change_between_two_texts_are_the_ones_that_write(decoder, draw_tokens):
    model, prompt = decoder(), draw_tokens(1, 5)
    before = assert_both_ways_write_the_same(model, inputs=prompt)
    for parameter in model.parameters():
        parameter.data.mul_(-0.7)
    assert not torch.equal(assert_both_ways_write_the_same(model, inputs=prompt), before)


def test_nothing_of_the_model_is_changed_by_writing(decoder, draw_tokens):
    model = decoder()
    state, attributes = {name: value.clone() for name, value in model.state_dict().items()}, set(vars(model))
    write(model, "fast", inputs=draw_tokens(2, 5))
    assert set(vars(model)) <= attributes | {"decoding"}
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    model.train()(draw_tokens(2, 5), labels=draw_tokens(2, 5)).loss.backward()


class Alternating(PositionScheme):
    """A scheme of the user's, which says something in all three places."""

    def added_to_embeddings(self, position_ids: torch.Tensor) -> torch.Tensor:
        return (position_ids % 3)[..., None].float().expand(-1, -1, 24) / 5

    def rotation(self, position_ids: torch.Tensor, layer_type: str = "full_attention"):
        angles = (position_ids - position_ids.max() // 2).float()[:, None, :, None].expand(-1, -1, -1, 4)
        return angles.cos(), angles.sin()

    def added_to_scores(self, query_positions: torch.Tensor, key_positions: torch.Tensor) -> torch.Tensor:
        bias = (query_positions[:, :, None] + key_positions[:, None]) % 2
        return bias[:, None].float() * torch.arange(4.0)[:, None, None]


def test_a_scheme_of_the_users_writes_what_transformers_loop_writes(decoder, padded, monkeypatch):
    monkeypatch.setitem(POSITION_SCHEMES, "alternating", Alternating)
    assert_both_ways_write_the_same(decoder(position_embedding="alternating"), **padded)


def quick_ways(model: nn.Module, monkeypatch: pytest.MonkeyPatch, **settings: object) -> int:
    """Count how often `generate` took the quick way when it was free to."""
    calls, call = [], FastWriting.__call__
    with monkeypatch.context() as patch:
        patch.setattr(FastWriting, "__call__", lambda *given: calls.append(1) or call(*given))
        write(model, "auto", **settings)
    return len(calls)


def test_generate_takes_the_quick_way_by_itself(decoder, draw_tokens, monkeypatch):
    model = decoder()
    model(draw_tokens(1, 5), output_hidden_states=True)  # leaves hooks of transformers' behind
    assert quick_ways(model, monkeypatch, inputs=draw_tokens(2, 5)) == 1
    assert quick_ways(model, monkeypatch, inputs=draw_tokens(2, 5), max_new_tokens=FEWEST_NEW_TOKENS["cpu"] - 1) == 0


def hook(model: nn.Module) -> None:
    model.model.layers[1].attention.query.register_forward_hook(lambda module, given, output: output * 0.5)


def adapt(model: nn.Module) -> None:
    class Adapter(nn.Linear):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return super().forward(tokens) * 0.5

    projection = model.model.layers[0].feed_forward.up
    model.model.layers[0].feed_forward.up = Adapter(24, projection.out_features, bias=False)


def replace_forward(model: nn.Module) -> None:
    layer = model.model.layers[0]
    layer.forward = lambda tokens, *given, **named: type(layer).forward(layer, tokens * 2, *given, **named)


def replace_dropout(model: nn.Module) -> None:
    model.model.layers[1].dropout = nn.ReLU().eval()


def replace_norm(model: nn.Module) -> None:
    class Doubled(nn.LayerNorm):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return super().forward(tokens) * 2

    model.model.layers[0].attention_norm = Doubled(24).eval()


def parametrise(model: nn.Module) -> None:
    class Half(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight / 2

    nn.utils.parametrize.register_parametrization(model.lm_head, "weight", Half())


CHANGES = {
    "has hooks": hook,
    "lm_head|was replaced": parametrise,
    "layers.0.feed_forward has hooks, trains, is compiled or was replaced": adapt,
    "layers.0 has hooks": replace_forward,
    "layers.0 has hooks, trains, is compiled or was replaced": replace_norm,
    "layers.1 has hooks, trains, is compiled or was replaced": replace_dropout,
    "dropout has hooks, trains": lambda model: model.model.layers[0].dropout.train(),
    "the weights are torch.bfloat16, torch.float32": lambda model: model.lm_head.bfloat16(),
    "the weights are torch.float64": lambda model: model.double(),
    "attention is flex_attention": lambda model: model.set_attn_implementation("flex_attention"),
    "is compiled": lambda model: model.model.layers[0].compile(backend="eager"),
}


@pytest.mark.parametrize("reason", CHANGES)
def test_a_changed_model_is_left_to_transformers_loop(decoder, draw_tokens, monkeypatch, reason):
    model, prompt = decoder(), draw_tokens(2, 5)
    CHANGES[reason](model)
    # The model itself cannot multiply unlike types, and flex attention warns where it is not compiled.
    if "bfloat16" not in reason and "flex" not in reason:
        assert quick_ways(model, monkeypatch, inputs=prompt) == 0
        assert torch.equal(write(model, "auto", inputs=prompt), write(model, "plain", inputs=prompt))
    with pytest.raises(ValueError, match=reason):
        write(model, "fast", inputs=prompt)


PATCHED = [Attention, Embeddings, FeedForward, Layer, nn.Dropout, nn.Embedding, nn.LayerNorm, nn.Linear]


@pytest.mark.parametrize("kind", PATCHED)
def test_a_class_that_was_patched_is_left_to_transformers_loop(decoder, draw_tokens, monkeypatch, kind):
    forward, calls = kind.forward, []

    def patched(self: nn.Module, *given: object, **named: object) -> object:
        calls.append(1)
        return forward(self, *given, **named)

    model, prompt = decoder(), draw_tokens(2, 5)
    monkeypatch.setattr(kind, "forward", patched)
    assert quick_ways(model, monkeypatch, inputs=prompt) == 0
    by_itself = len(calls)
    assert by_itself > 0
    write(model, "plain", inputs=prompt)
    assert len(calls) == 2 * by_itself
    with pytest.raises(ValueError, match="has hooks, trains, is compiled or was replaced"):
        write(model, "fast", inputs=prompt)


def test_a_last_norm_of_ones_own_is_called_as_it_is(decoder, draw_tokens):
    class Doubled(nn.LayerNorm):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return super().forward(tokens) * 2 + 1

    model = decoder()
    model.model.norm = Doubled(24).eval()
    assert_both_ways_write_the_same(model, inputs=draw_tokens(2, 5))


class Subclass(MiniLMForCausalLM):
    """May compute anything."""


def test_a_subclass_is_left_to_transformers_loop(make_model, draw_tokens, monkeypatch):
    model = make_model(Subclass, attention="sdpa", bos_token_id=1)
    assert quick_ways(model, monkeypatch, inputs=draw_tokens(2, 5)) == 0


@pytest.mark.parametrize(
    ("reason", "settings"),
    [
        ("more than the tokens is asked for", {"return_dict_in_generate": True}),
        ("there is no cache", {"use_cache": False}),
        ("the cache is not the usual one", {"cache_implementation": "static", "disable_compile": True}),
        ("the cache is not generate's own", {"past_key_values": DynamicCache()}),
        ("there are no tokens", {"inputs": None, "inputs_embeds": torch.ones(1, 3, 24)}),
        ("the prompt is read in pieces", {"prefill_chunk_size": 2}),
    ],
)
def test_what_asks_for_more_is_left_to_transformers_loop(decoder, draw_tokens, reason, settings):
    with pytest.raises(ValueError, match=f"decoding \\(fast\\) must have nothing in its way, and {reason}"):
        write(decoder(), "fast", **{"inputs": draw_tokens(1, 5), **settings})


def test_autocast_and_gradients_are_left_to_transformers_loop(decoder, draw_tokens):
    model, prompt = decoder(), draw_tokens(1, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="autocast chooses the types"):
        write(model, "fast", inputs=prompt)
    assert obstacle_to(model, prompt, model.generation_config, {}) == "gradients are followed"


def test_the_likeliest_token_is_the_one_that_argmax_names():
    draw = torch.Generator().manual_seed(5)
    for size in (30_522, 25_600, 25_601, 200):
        scores = torch.randint(-40, 40, (600, size), generator=draw).float()  # the highest stands in many places
        scores[::3] = torch.randn(200, size, generator=draw)
        scores[1, -1], scores[4, 77], scores[7] = 99.0, float("nan"), -torch.inf
        assert torch.equal(likeliest(scores), scores.argmax(dim=-1))


def test_an_unknown_way_is_refused(decoder, draw_tokens):
    with pytest.raises(ValueError, match=r"decoding \(quick\) must be one of auto, fast, plain"):
        write(decoder(), "quick", inputs=draw_tokens(1, 5))


def test_transformers_knows_that_the_model_writes():
    assert MiniLMForCausalLM.can_generate()
    assert issubclass(MiniLMForCausalLM, GenerationMixin)


def test_a_model_of_the_size_mini_writes_what_transformers_loop_writes():
    torch.manual_seed(0)
    config = MiniLMConfig.preset("modern_decoder", "mini", vocab_size=997, tie_word_embeddings=False)
    model = MiniLMForCausalLM(config).eval()
    prompts = torch.randint(3, 997, (5, 8))
    assert_both_ways_write_the_same(model, inputs=prompts, max_new_tokens=60)
