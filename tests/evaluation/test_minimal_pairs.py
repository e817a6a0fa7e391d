"""Minimal pairs: models whose answers are known beforehand."""

import pytest
import torch

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.data.world_probes import Probe
from hf_minilm.evaluation.minimal_pairs import minimal_pair_accuracy
from hf_minilm.evaluation.token_scores import target_log_probabilities


def prefer(model, tokens):
    with torch.no_grad():
        for token in tokens:
            model.lm_head.bias[token] = 2.0


@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForPreTraining])
def test_a_constant_masked_model_scores_exactly_one_half(uniform_model, word_tokenizer, world, model_class):
    model = uniform_model(model_class, word_tokenizer)
    table = minimal_pair_accuracy(model, word_tokenizer, world.probes("number_agreement", 31), batch_size=4)
    assert [cell.accuracy for cell in table] == [0.5, 0.5, 0.5]
    assert [cell.distance for cell in table] == [0, 1, 2]
    assert sum(cell.number for cell in table) == 31
    assert {cell.phenomenon for cell in table} == {"number_agreement"}


def test_a_constant_causal_model_scores_exactly_one_half_where_lengths_agree(uniform_model, byte_tokenizer):
    model = uniform_model(MiniLMForCausalLM, byte_tokenizer)
    probes = [Probe("en", "We saw Ana. ", "She", "She", " is old.", 1, "pronoun")]
    assert minimal_pair_accuracy(model, byte_tokenizer, probes)[0].accuracy == 0.5


def test_a_model_that_prefers_good_words_is_always_right_and_one_that_prefers_bad_ones_never(
    uniform_model, word_tokenizer, world
):
    probes = [probe for probe in world.probes("pronoun", 24) if probe.good == "She"]
    assert probes
    for word, accuracy in (("She", 1.0), ("He", 0.0)):
        model = uniform_model(MiniLMForMaskedLM, word_tokenizer)
        prefer(model, [word_tokenizer.convert_tokens_to_ids(word)])
        table = minimal_pair_accuracy(model, word_tokenizer, probes)
        assert {cell.accuracy for cell in table} == {accuracy}
        assert all(cell.low <= cell.accuracy <= cell.high for cell in table)


def test_all_tokens_of_a_divided_word_are_masked_together(monkeypatch, tiny_model, piece_tokenizer):
    model = tiny_model(MiniLMForMaskedLM, piece_tokenizer)
    probe = Probe("en", "The child ", "sleeps", "sleep", " in the house.", 0, "number_agreement")
    scores = []
    for word in (probe.good, probe.bad):
        before, middle, after = (
            piece_tokenizer(part, add_special_tokens=False)["input_ids"] for part in (probe.prefix, word, probe.suffix)
        )
        assert len(middle) > 1
        masks = [piece_tokenizer.mask_token_id] * len(middle)
        ids = [piece_tokenizer.cls_token_id, *before, *masks, *after, piece_tokenizer.sep_token_id]
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        first = 1 + len(before)
        scores.append(sum(logs[first + place, token].item() for place, token in enumerate(middle)))
    found = []

    def note(*given, **named):
        logs = list(target_log_probabilities(*given, **named))
        found.extend(logs)
        return logs

    monkeypatch.setattr("hf_minilm.evaluation.minimal_pairs.target_log_probabilities", note)
    (cell,) = minimal_pair_accuracy(model, piece_tokenizer, [probe])
    assert [float(logs.sum()) for logs in found] == pytest.approx(scores, abs=1e-4)
    assert cell.accuracy == float(scores[0] > scores[1])


def test_a_causal_model_is_asked_for_the_probability_of_the_whole_text(tiny_model, byte_tokenizer, world):
    model = tiny_model(MiniLMForCausalLM, byte_tokenizer)
    probes = world.probes("reflexive", 9)

    def score(text):
        ids = torch.tensor([[byte_tokenizer.bos_token_id, *byte_tokenizer(text, add_special_tokens=False).input_ids]])
        with torch.no_grad():
            return -model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)

    right = [score(p.prefix + p.good + p.suffix) > score(p.prefix + p.bad + p.suffix) for p in probes]
    table = minimal_pair_accuracy(model, byte_tokenizer, probes, batch_size=2)
    assert sum(cell.accuracy * cell.number for cell in table) == pytest.approx(sum(right))


def test_kinds_keep_their_order_and_distances_ascend(uniform_model, word_tokenizer):
    model = uniform_model(MiniLMForMaskedLM, word_tokenizer)
    kinds = [("sense", 1), ("lead", 2), ("sense", 0), ("lead", 0)]
    probes = [Probe("en", "The ", "old", "old", ".", distance, phenomenon) for phenomenon, distance in kinds]
    table = minimal_pair_accuracy(model, word_tokenizer, probes)
    assert [(cell.phenomenon, cell.distance) for cell in table] == [
        ("sense", 0),
        ("sense", 1),
        ("lead", 0),
        ("lead", 2),
    ]


def test_pairs_longer_than_the_models_positions_are_left_out(tiny_model, word_tokenizer):
    model = tiny_model(MiniLMForMaskedLM, word_tokenizer)
    model.config.max_position_embeddings = 10
    probes = [Probe("en", "The keys " * number, "are", "is", ".", 0, "sense") for number in (1, 3, 4)]
    (cell,) = minimal_pair_accuracy(model, word_tokenizer, probes)
    assert cell.number == 2
