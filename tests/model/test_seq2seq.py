"""The encoder-decoder's forward: who sees what, pairs that share rows, and the loss."""

import pytest
import torch
from torch import nn

from hf_minilm import MiniLMForConditionalGeneration, MiniLMSeq2SeqConfig
from hf_minilm.inspection import attention_maps

SCHEMES = ["none", "learned", "sinusoidal", "rope", "alibi", "relative_bias"]
NARROW = {"hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 1, "num_hidden_layers": 3}
"""A decoder unlike its encoder in width, heads and layers."""
SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 2}
PAIRS = [[(5, 3), (1, 6), (4, 1)], [(7, 2), (4, 8)]]
"""Lengths of the source and the target of each pair of each row; rows are 11 and 12 tokens long."""


@pytest.fixture
def build(make_config):
    """Equal arguments but `attention` give equal weights."""

    def make(*, encoder=None, decoder=None, attention="eager", seed=3, **fields) -> nn.Module:
        stacks = {"encoder": make_config(**(encoder or {})), "decoder": make_config(**(decoder or {}))}
        torch.manual_seed(seed)
        model = MiniLMForConditionalGeneration(MiniLMSeq2SeqConfig(**stacks, **fields))
        model.set_attn_implementation(attention)
        return model.eval()

    return make


def both(**fields) -> dict[str, dict]:
    return {"encoder": fields, "decoder": fields}


def positions_of(lengths: list[int], total: int) -> list[int]:
    """Positions of one row; what is left of it is one more sequence."""
    return [place for length in (*lengths, total - sum(lengths)) for place in range(length)]


def packed_rows(draw_tokens) -> dict[str, torch.Tensor]:
    """Two rows of pairs, with padding tails in the first row's source and in the second row's target."""
    source, target = draw_tokens(2, 11), draw_tokens(2, 12, seed=5)
    rows = {
        "input_ids": source,
        "labels": target.clone(),
        "position_ids": torch.tensor([positions_of([pair[0] for pair in row], 11) for row in PAIRS]),
        "decoder_position_ids": torch.tensor([positions_of([pair[1] for pair in row], 12) for row in PAIRS]),
    }
    ends = [sum(pair[1] for pair in row) for row in PAIRS]
    for row, end in enumerate(ends):
        rows["labels"][row, end:] = -100
    rows["decoder_input_ids"] = starts_with_zero(rows["labels"], rows["decoder_position_ids"])
    return rows


def starts_with_zero(labels: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return labels.roll(1, dims=1).masked_fill(positions == 0, 0).clamp(min=0)


def separate(rows: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    pairs = []
    for source, target, lengths in zip(rows["input_ids"], rows["labels"], PAIRS, strict=True):
        for source_length, target_length in lengths:
            pairs.append({"input_ids": source[None, :source_length], "labels": target[None, :target_length]})
            source, target = source[source_length:], target[target_length:]
    return pairs


def packed_and_alone(model: nn.Module, rows: dict[str, torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Logits of the labelled tokens and the loss: of packed rows, and of each pair by itself."""
    packed = model(**rows, return_logits=True)
    alone = [model(**pair, return_logits=True) for pair in separate(rows)]
    logits = torch.cat([output.logits[0] for output in alone])
    total = sum(output.loss * output.logits.shape[1] for output in alone)
    return [(packed.logits[rows["labels"] != -100], packed.loss), (logits, total / len(logits))]


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_pairs_equal_separate_pairs_in_outputs_loss_and_gradients(build, draw_tokens, attention, training):
    fields = {"decoder": {**NARROW, "position_embedding": "relative_bias"}, "share_embeddings": False}
    model, rows = build(attention=attention, **fields).train(training), packed_rows(draw_tokens)
    gradients = []
    for logits, loss in packed_and_alone(model, rows):
        gradients.append([logits, loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for packed, alone in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, alone, atol=2e-5, rtol=1e-4)
    assert all(gradient.isfinite().all() for gradient in gradients[0])


@pytest.mark.parametrize("layers", [{}, SLIDING], ids=["full", "sliding"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_packing_cannot_be_seen_under_any_position_scheme(build, draw_tokens, scheme, attention, layers):
    model = build(attention=attention, **both(position_embedding=scheme, **layers))
    for packed, alone in zip(*packed_and_alone(model, packed_rows(draw_tokens)), strict=True):
        torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


# torch's compiler, and the way in which transformers calls it, use what torch is going to drop.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["rope", "alibi"])
@torch.no_grad()
def test_flex_attention_keeps_pairs_apart_as_the_formula_does(build, draw_tokens, scheme):
    torch.compiler.reset()
    rows, fields = packed_rows(draw_tokens), both(hidden_size=64, position_embedding=scheme)
    expected, labelled = build(**fields)(**rows), rows["labels"] != -100
    # With a bias and shapes left open, torch 2.13 writes C++ code for the CPU that does not compile.
    with torch._dynamo.config.patch(automatic_dynamic_shapes=False):
        found = build(attention="flex_attention", **fields)(**rows)
    torch.testing.assert_close(found.logits[labelled], expected.logits[labelled], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_token_has_no_gradient_from_another_pair_of_its_row_nor_from_an_earlier_target_token(
    build, draw_tokens, attention
):
    model, rows = build(attention=attention), packed_rows(draw_tokens)
    embed = model.get_input_embeddings()
    source, target = (embed(rows[name]).detach().requires_grad_() for name in ("input_ids", "decoder_input_ids"))
    outputs = model.model(
        inputs_embeds=source,
        decoder_inputs_embeds=target,
        position_ids=rows["position_ids"],
        decoder_position_ids=rows["decoder_position_ids"],
    ).last_hidden_state
    # The fifth target token of the first row is the second of its second pair, whose source is one token.
    outputs[0, 4].square().sum().backward()
    assert source.grad.ne(0).any(dim=-1).nonzero().tolist() == [[0, 5]]
    assert target.grad.ne(0).any(dim=-1).nonzero().tolist() == [[0, 3], [0, 4]]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_a_later_target_token_moves_no_earlier_output_and_every_source_token_moves_all(
    build, draw_tokens, scheme, attention
):
    model = build(attention=attention, **both(position_embedding=scheme))
    source, target = draw_tokens(1, 7), draw_tokens(1, 9, seed=5)

    def moved(**changed: torch.Tensor) -> list[int]:
        given = {"input_ids": source, "decoder_input_ids": target}
        difference = model(**given).logits - model(**{**given, **changed}).logits
        return (difference.abs().amax(dim=(0, 2)) > 1e-6).nonzero().flatten().tolist()

    for place in range(9):
        changed = target.clone()
        changed[:, place] = changed[:, place] % 60 + 1
        assert moved(decoder_input_ids=changed) == list(range(place, 9))
    for place in range(7):
        changed = source.clone()
        changed[:, place] = changed[:, place] % 60 + 1
        assert moved(input_ids=changed) == list(range(9))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scheme", ["none", "rope", "alibi", "relative_bias"])
@torch.no_grad()
def test_padding_of_the_source_on_either_side_changes_nothing(build, draw_tokens, scheme, attention):
    model = build(attention=attention, **both(position_embedding=scheme))
    source, target = draw_tokens(1, 7), draw_tokens(1, 5, seed=5)
    expected = model(source, decoder_input_ids=target).logits
    for sides in ((3, 0), (0, 3), (1, 2)):
        padded, mask = (nn.functional.pad(tensor, sides) for tensor in (source, torch.ones_like(source)))
        # As many count positions, which may break off within the padding and nowhere else.
        counted = (mask.cumsum(1) - 1).clamp(min=0)
        for positions in ({}, {"position_ids": counted}, {"position_ids": counted.masked_fill(mask == 0, 1)}):
            found = model(padded, attention_mask=mask, decoder_input_ids=target, **positions).logits
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_the_configuration_asks_for_is_returned_of_both_stacks(build, draw_tokens):
    model = build(attention="eager")
    model.config.output_hidden_states = model.config.output_attentions = True
    outputs = model(draw_tokens(1, 7), decoder_input_ids=draw_tokens(1, 5, seed=5))
    names = ("encoder_hidden_states", "decoder_hidden_states", "encoder_attentions", "decoder_attentions")
    assert all(getattr(outputs, name) for name in (*names, "cross_attentions"))
    model.config.return_dict = False
    assert torch.equal(model(draw_tokens(1, 7), decoder_input_ids=draw_tokens(1, 5, seed=5))[0], outputs.logits)


@torch.no_grad()
def test_labels_of_packed_targets_are_read_from_the_start_token_of_each(build, draw_tokens):
    model, labels = build(), draw_tokens(1, 6)
    model.config.decoder_start_token_id, model.config.pad_token_id = 1, 0
    positions = torch.tensor([[0, 1, 2, 3, 0, 1]])
    packed = {"position_ids": positions, "decoder_position_ids": positions, "labels": labels}
    read = torch.cat([torch.tensor([[1]]), labels[:, :3], torch.tensor([[1]]), labels[:, 4:5]], dim=1)
    found = model(draw_tokens(1, 6, seed=4), **packed).loss
    torch.testing.assert_close(found, model(draw_tokens(1, 6, seed=4), decoder_input_ids=read, **packed).loss)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_padding_before_the_target_changes_nothing_and_leaves_the_cache(build, draw_tokens, attention):
    model = build(attention=attention, **both(position_embedding="rope"))
    source, target = draw_tokens(1, 7), draw_tokens(1, 5, seed=5)
    expected = model(source, decoder_input_ids=target).logits
    padded, mask = (nn.functional.pad(tensor, (3, 0)) for tensor in (target, torch.ones_like(target)))
    counted = {"decoder_attention_mask": mask, "decoder_position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    found = model(source, decoder_input_ids=padded, **counted)
    torch.testing.assert_close(found.logits[:, 3:], expected, atol=1e-5, rtol=1e-5)
    assert found.past_key_values is not None


@pytest.mark.parametrize("fields", [{}, {"type_vocab_size": 2}, {"scale_embeddings": True, "embedding_norm": True}])
@torch.no_grad()
def test_vectors_in_place_of_ids_give_the_same(build, draw_tokens, fields):
    model = build(encoder=fields, decoder={**NARROW, **fields}, share_embeddings=False)
    source, target = draw_tokens(2, 7), draw_tokens(2, 5, seed=5)
    expected = model(source, decoder_input_ids=target).logits
    vectors = {
        "inputs_embeds": model.get_encoder().get_input_embeddings()(source),
        "decoder_inputs_embeds": model.get_decoder().get_input_embeddings()(target),
    }
    assert torch.equal(model(**vectors).logits, expected)
    encoded = model.get_encoder()(source)
    for given in (encoded, (encoded.last_hidden_state,)):
        assert torch.equal(model(encoder_outputs=given, decoder_input_ids=target).logits, expected)


def test_embeddings_are_scaled_by_the_root_of_the_width(build, draw_tokens):
    source, target = draw_tokens(2, 7), draw_tokens(2, 5, seed=5)
    scaled, plain = (build(**both(scale_embeddings=scales), tie_word_embeddings=False) for scales in (True, False))
    with torch.no_grad():
        plain.get_input_embeddings().weight.mul_(24**0.5)
    expected = plain(source, decoder_input_ids=target).logits
    torch.testing.assert_close(scaled(source, decoder_input_ids=target).logits, expected)


@pytest.mark.parametrize("share", [0.0, 0.13])
def test_label_smoothing_is_the_formula_in_training_and_nothing_in_evaluation(build, draw_tokens, share):
    model = build()
    labels = draw_tokens(2, 6, seed=5)
    labels[1, 2:] = -100
    given = {"input_ids": draw_tokens(2, 7), "labels": labels, "return_logits": True}
    logs = model(**given).logits.log_softmax(dim=-1)[labels != -100]  # [N, V]
    own = -logs.gather(1, labels[labels != -100][:, None]).mean()
    torch.testing.assert_close(model(**given, label_smoothing=share).loss, own)
    # Szegedy et al. 2016, section 7: the target's share is 1 - s, and s is spread evenly over all V.
    smoothed = (1 - share) * own - share * logs.mean()
    torch.testing.assert_close(model.train()(**given, label_smoothing=share).loss, smoothed)


def test_the_loss_is_a_sum_over_a_count_that_may_be_given(build, draw_tokens):
    model = build().train()
    labels = draw_tokens(2, 6, seed=5)
    labels[1, 2:] = -100
    given = {"input_ids": draw_tokens(2, 7), "labels": labels}
    total = model(**given).loss * 8
    for count in (23, 23.0, torch.tensor(23)):
        torch.testing.assert_close(model(**given, num_items_in_batch=count).loss, total / 23)
    nothing = model(given["input_ids"], labels=torch.full_like(labels, -100))
    assert nothing.loss.item() == 0


def test_logits_are_returned_when_somebody_reads_them(build, draw_tokens):
    model = build()
    given = {"input_ids": draw_tokens(2, 7), "labels": draw_tokens(2, 6, seed=5)}
    every = model(**given).logits
    assert every.shape == (2, 6, 61)
    assert model(**given, return_logits=False).logits is None
    assert model.train()(**given).logits is None
    assert torch.equal(model(**given, return_logits=True).logits, every)
    torch.testing.assert_close(model(**given, return_logits=True, logits_to_keep=2).logits, every[:, -2:])


def test_the_decoder_reads_the_start_token_and_then_the_labels(build):
    model = build(decoder_start_token_id=7, pad_token_id=3)
    labels = torch.tensor([[9, 8, 5], [4, -100, -100]])
    assert model.prepare_decoder_input_ids_from_labels(labels).tolist() == [[7, 9, 8], [7, 4, 3]]
    with pytest.raises(ValueError, match=r"decoder_input_ids \(None\) must be given, or labels to a head"):
        model(labels.clamp(min=0))


def test_what_the_decoder_reads_cannot_be_made_of_labels_without_a_start_token(build):
    model = build(pad_token_id=None)
    with pytest.raises(ValueError, match=r"decoder_start_token_id \(None\) and pad_token_id \(None\) must be set"):
        model(torch.tensor([[5]]), labels=torch.tensor([[5]]))


@pytest.mark.parametrize("scheme", ["rope", "alibi"])
def test_three_kinds_of_attention_are_returned_and_the_maps_beside_sdpa_are_the_same(build, draw_tokens, scheme):
    fields = {"encoder": {"position_embedding": scheme}, "decoder": {**NARROW, "position_embedding": scheme}}
    source, target = draw_tokens(2, 7), draw_tokens(2, 6, seed=5)
    mask = torch.ones_like(source)
    mask[1, 4:] = 0
    given = {"input_ids": source, "attention_mask": mask, "decoder_input_ids": target}
    outputs = build(**fields, share_embeddings=False)(**given, output_attentions=True, output_hidden_states=True)
    fast = build(**fields, share_embeddings=False, attention="sdpa")
    kinds = {
        "*encoder.layers*": (outputs.encoder_attentions, 2, (2, 4, 7, 7)),
        "*decoder*.attention": (outputs.decoder_attentions, 3, (2, 5, 6, 6)),
        "*cross_attention": (outputs.cross_attentions, 3, (2, 5, 6, 7)),
    }
    for named, (weights, number, shape) in kinds.items():
        assert [tuple(layer.shape) for layer in weights] == [shape] * number
        for found, expected in zip(attention_maps(fast, given, named=named), weights, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert [len(outputs.encoder_hidden_states), len(outputs.decoder_hidden_states)] == [3, 4]
    assert torch.equal(outputs.encoder_hidden_states[-1], outputs.encoder_last_hidden_state)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(build, draw_tokens, reentrant):
    fields = {"decoder": {**NARROW, "position_embedding": "relative_bias"}, "share_embeddings": False}
    rows, gradients = packed_rows(draw_tokens), []
    for checkpointing in (False, True):
        model = build(**fields).train()
        if checkpointing:
            # transformers 5.17 knows it by its older name.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": reentrant})
        model(**rows).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_half_precision_stays_near_single_precision(build, draw_tokens, attention):
    model, rows = build(attention=attention, **both(initializer_range=0.1)), packed_rows(draw_tokens)
    labelled = rows["labels"] != -100
    expected = model(**rows).logits[labelled]
    found = model.to(torch.bfloat16)(**rows).logits[labelled]
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.03 * expected.abs().max()
