import pytest
import torch
from transformers import AttentionInterface, DynamicCache

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMModel
from hf_minilm.model.attention import written_out_attention

LENGTHS = [[5, 1, 7], [4, 9, 0]]
"""Lengths of the sequences of each row of 13 tokens."""


def packed_positions() -> torch.Tensor:
    return torch.tensor([[place for length in row for place in range(length)] for row in LENGTHS])


def separate(input_ids: torch.Tensor) -> list[torch.Tensor]:
    rows = zip(input_ids, LENGTHS, strict=True)
    return [part[None] for row, lengths in rows for part in row.split(lengths) if len(part)]


def gradients_of(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("with_mask", [False, True], ids=["no mask", "all-ones mask"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("is_causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_rows_equal_separate_sequences_in_outputs_and_gradients(
    make_model, draw_tokens, attention, is_causal, training, with_mask
):
    input_ids = draw_tokens(2, 13)
    packed_model, separate_model = (
        make_model(MiniLMModel, attention=attention, is_causal=is_causal).train(training) for _ in range(2)
    )
    mask = torch.ones_like(input_ids) if with_mask else None
    packed = packed_model(input_ids, position_ids=packed_positions(), attention_mask=mask).last_hidden_state
    alone = torch.cat([separate_model(part).last_hidden_state[0] for part in separate(input_ids)])
    packed = packed.flatten(0, 1)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)
    weights = torch.linspace(-1, 1, packed.numel()).view_as(packed)
    (packed * weights).sum().backward()
    (alone * weights).sum().backward()
    for ours, theirs in zip(gradients_of(packed_model), gradients_of(separate_model), strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("scheme", ["none", "learned", "sinusoidal", "alibi", "relative_bias"])
@pytest.mark.parametrize("is_causal", [False, True], ids=["bidirectional", "causal"])
def test_packing_cannot_be_seen_under_any_position_scheme(make_model, draw_tokens, scheme, is_causal):
    model = make_model(MiniLMModel, attention="sdpa", is_causal=is_causal, position_embedding=scheme)
    input_ids = draw_tokens(2, 13)
    packed = model(input_ids, position_ids=packed_positions()).last_hidden_state.flatten(0, 1)
    alone = torch.cat([model(part).last_hidden_state[0] for part in separate(input_ids)])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_one_sequences_tokens_have_no_gradient_from_another_sequence(make_model, draw_tokens, attention):
    model = make_model(MiniLMModel, attention=attention)
    embeddings = model.embeddings.tokens(draw_tokens(2, 13)).detach().requires_grad_()
    outputs = model(inputs_embeds=embeddings, position_ids=packed_positions()).last_hidden_state
    outputs[0, 6:].square().sum().backward()
    assert embeddings.grad[0, :6].eq(0).all()
    assert embeddings.grad[0, 6:].ne(0).any(dim=-1).all()
    assert embeddings.grad[1].eq(0).all()


def test_a_packed_row_with_padding_hides_the_padding(make_model, draw_tokens):
    model = make_model(MiniLMModel, attention="sdpa")
    input_ids = draw_tokens(2, 13)
    mask = torch.ones_like(input_ids)
    mask[0, 10:] = 0
    changed = torch.where(mask.bool(), input_ids, input_ids % 60 + 1)
    before, after = (
        model(ids, position_ids=packed_positions(), attention_mask=mask).last_hidden_state
        for ids in (input_ids, changed)
    )
    assert torch.equal(before[mask.bool()], after[mask.bool()])


def test_position_ids_of_one_row_stand_for_the_whole_batch(make_model, draw_tokens):
    model = make_model(MiniLMModel)
    input_ids, row = draw_tokens(2, 13), packed_positions()[:1]
    one = model(input_ids, position_ids=row).last_hidden_state
    assert torch.equal(one, model(input_ids, position_ids=row.expand(2, -1)).last_hidden_state)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "minilm_varlen"])
@pytest.mark.parametrize("number", [0, 1, 4, 9])
def test_padding_between_two_sequences_keeps_them_apart_however_it_is_numbered(
    make_model, draw_tokens, attention, number
):
    model, ids = make_model(MiniLMModel, attention=attention).eval(), draw_tokens(1, 8)
    mask, positions = torch.tensor([[1, 1, 1, 1, 0, 1, 1, 1]]), torch.tensor([[0, 1, 2, 3, number, 1, 2, 3]])
    with torch.no_grad():
        found = model(ids, attention_mask=mask, position_ids=positions).last_hidden_state
        first = model(ids[:, :4]).last_hidden_state
        second = model(ids[:, 5:], position_ids=positions[:, 5:]).last_hidden_state
    torch.testing.assert_close(found[:, :4], first, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:, 5:], second, atol=1e-5, rtol=1e-5)


def test_packed_rows_return_no_cache_and_whole_rows_do(make_model, draw_tokens):
    model = make_model(MiniLMForCausalLM)
    input_ids = draw_tokens(2, 13)
    assert model(input_ids, position_ids=packed_positions()).past_key_values is None
    assert isinstance(model(input_ids).past_key_values, DynamicCache)
    assert model.train()(input_ids).past_key_values is None


@pytest.mark.parametrize("model_class", [MiniLMForCausalLM, MiniLMForMaskedLM])
def test_the_loss_of_packed_rows_is_that_of_separate_sequences(make_model, draw_tokens, model_class):
    model = make_model(model_class, attention="sdpa")
    input_ids = draw_tokens(2, 13)
    packed = model(input_ids, position_ids=packed_positions(), labels=input_ids).loss
    total = count = 0
    for part in separate(input_ids):
        predicted = part.shape[1] - (model_class is MiniLMForCausalLM)
        total, count = total + model(part, labels=part).loss * predicted, count + predicted
    torch.testing.assert_close(packed, total / count)


class StandIn:
    """Flash attention for a row without padding, as transformers calls it; the formula inside each sequence."""

    def __init__(self) -> None:
        self.given: list[dict[str, object]] = []

    def __call__(self, module, query, key, value, attention_mask, *, scaling, is_causal=None, cu_seq_lens_q, **given):
        assert attention_mask is None
        self.given.append({"cu_seq_lens_q": cu_seq_lens_q, **given})
        causal = module.is_causal if is_causal is None else is_causal
        sizes = cu_seq_lens_q.diff().tolist()
        outputs = []
        for parts in zip(*(tensor.split(sizes, dim=2) for tensor in (query, key, value)), strict=True):
            length = parts[0].shape[2]
            mask = torch.ones(length, length, dtype=torch.bool).tril() if causal else None
            outputs.append(written_out_attention(module, *parts, mask, scaling=scaling)[0])
        return torch.cat(outputs, dim=1), None


@pytest.fixture
def flash(monkeypatch):
    """Stand in for the kernel, which needs a GPU, under its name and with its own mask function."""
    stand_in = StandIn()
    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", stand_in)
    return stand_in


def as_flash(model):
    model.config._attn_implementation = "flash_attention_2"
    return model


IN_ONE_ROW = {"from 0": [*range(5), *range(1), *range(7)], "from anywhere": [*range(3, 8), 9, *range(7)]}


@pytest.mark.parametrize("positions", IN_ONE_ROW.values(), ids=IN_ONE_ROW)
@pytest.mark.parametrize("with_mask", [False, True], ids=["no mask", "all-ones mask"])
@pytest.mark.parametrize("is_causal", [False, True], ids=["bidirectional", "causal"])
def test_flash_attention_keeps_the_sequences_of_a_single_row_apart(
    make_model, draw_tokens, flash, is_causal, with_mask, positions
):
    tokens, position_ids = draw_tokens(1, 13), torch.tensor([positions])
    mask = torch.ones_like(tokens) if with_mask else None
    eager, model = (make_model(MiniLMModel, is_causal=is_causal) for _ in range(2))
    expected = eager(tokens, position_ids=position_ids).last_hidden_state
    outputs = as_flash(model)(tokens, position_ids=position_ids, attention_mask=mask)
    assert outputs.past_key_values is None
    assert [given["max_length_q"] for given in flash.given] == [7, 7]
    torch.testing.assert_close(outputs.last_hidden_state, expected, atol=1e-5, rtol=1e-5)
    expected.square().sum().backward()
    outputs.last_hidden_state.square().sum().backward()
    for ours, theirs in zip(gradients_of(model), gradients_of(eager), strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=1e-4)


def test_bounds_that_a_caller_tells_flash_attention_reach_it_and_nothing_is_read(
    make_model, draw_tokens, flash, monkeypatch
):
    # As in continuous batching, which records a step for a GPU: nothing may be read from it meanwhile.
    model, tokens = as_flash(make_model(MiniLMForCausalLM)), draw_tokens(1, 13)
    bounds, positions = torch.tensor([0, 5, 6, 13], dtype=torch.int32), torch.tensor([IN_ONE_ROW["from 0"]])
    expected = model(tokens, position_ids=positions).logits
    monkeypatch.setattr("hf_minilm.model.attention.packed_sequence_ids", None)
    told = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 7, "max_length_k": 7}
    found = model(tokens, position_ids=positions, **told)
    assert torch.equal(found.logits, expected)
    assert found.past_key_values is None
    assert all(given["cu_seq_lens_q"] is bounds for given in flash.given[2:])


def test_flash_attention_is_refused_where_it_would_not_keep_packed_sequences_apart(make_model, draw_tokens, flash):
    message = r"attn_implementation \(flash_attention_2\) must keep packed sequences apart, and takes no mask"
    model = as_flash(make_model(MiniLMModel))
    with pytest.raises(ValueError, match=message):
        model(draw_tokens(2, 13), position_ids=packed_positions())
    padded = torch.tensor([[1] * 11 + [0] * 2])
    with pytest.raises(ValueError, match=message):
        model(draw_tokens(1, 13), position_ids=packed_positions()[:1], attention_mask=padded)
    assert flash.given == []


def test_an_implementation_without_masks_is_refused_for_packed_rows(make_model, draw_tokens, monkeypatch):
    monkeypatch.setitem(AttentionInterface._global_mapping, "blind", StandIn())
    model = make_model(MiniLMModel)
    model.config._attn_implementation = "blind"
    with pytest.raises(ValueError, match=r"attn_implementation \(blind\) must keep packed sequences apart"):
        model(draw_tokens(1, 13), position_ids=packed_positions()[:1])
