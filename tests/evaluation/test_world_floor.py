"""The floor: a model that is the exact answer reaches it, and no other falls below it."""

import math
from types import SimpleNamespace

import pytest
import torch

from hf_minilm import MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.data.best_prediction import Channel, Segment, SegmentLaw
from hf_minilm.data.objectives import MaskedObjective
from hf_minilm.data.store import build_store
from hf_minilm.data.tokenizer import special_tokens
from hf_minilm.data.world import World
from hf_minilm.evaluation.world_floor import causal_floor, masked_floor


class ExactAnswer(torch.nn.Module):
    """A model that computes the best prediction of whole stories or of pairs cut out of them, all selected masked."""

    def __init__(self, world, tokenizer):
        super().__init__()
        self.dummy = torch.nn.Parameter(torch.zeros(()))
        self.tokenizer = tokenizer
        law = SegmentLaw(first_opens=1.0, second_opens=0.0, cut=False)
        self.predictor = world.best_predictor(Channel(vocabulary_size=1, mask=1.0, random=0.0), law=law)

    def forward(self, input_ids, token_type_ids):
        ids = input_ids[0]
        words = self.tokenizer.convert_ids_to_tokens(ids.tolist())
        ends = [place for place, word in enumerate(words) if word == "[SEP]"]
        spans = [(1, ends[0]), *((ends[0] + 1, end) for end in ends[1:])]
        segments = [Segment(tuple(words[start:stop])) for start, stop in spans]
        logits = torch.full((1, len(ids), len(self.tokenizer)), -60.0, dtype=torch.float64)
        if len(segments) == 1:
            for place in (ids == self.tokenizer.mask_token_id).nonzero().flatten().tolist():
                for word, share in self.predictor.distribution(segments[0], place - 1).items():
                    logits[0, place, self.tokenizer.convert_tokens_to_ids(word)] = math.log(share)
            return SimpleNamespace(logits=logits)
        share = self.predictor.predict(*segments).next_probability
        order = torch.tensor([[share, 1.0 - share]], dtype=torch.float64).clamp(min=1e-200).log()
        return SimpleNamespace(prediction_logits=logits, seq_relationship_logits=order)


@pytest.fixture
def objective(world, tmp_path):
    def build(tokenizer, num_documents, **settings):
        documents = lambda: world.documents(num_documents, split="validation")  # noqa: E731
        store = build_store(documents, tokenizer, cache_folder=tmp_path, key=str(num_documents), progress=False)
        return MaskedObjective(store, special_tokens(tokenizer), seed=7, **settings)

    return build


def test_a_model_that_is_the_exact_answer_reaches_the_floor_of_masked_words(world, word_tokenizer, objective):
    held = objective(word_tokenizer, 3, row_length=256, mask_share=1.0, random_share=0.0, mask_rate=0.08)
    floor = masked_floor(ExactAnswer(world, word_tokenizer), held, world, word_tokenizer)
    assert floor.num_sequences == 3
    assert floor.model_nats_per_token == pytest.approx(floor.nats_per_token, abs=1e-9)
    assert 0 < floor.nats_per_token < 2
    assert floor.num_pairs == 0
    assert floor.next_sentence_loss is None


def test_a_model_that_is_the_exact_answer_reaches_the_floor_of_next_sentences(world, word_tokenizer, objective):
    settings = {"mask_share": 1.0, "random_share": 0.0, "short_share": 0.0, "mask_rate": 0.9}
    held = objective(word_tokenizer, 12, row_length=256, next_sentence=True, **settings)
    floor = masked_floor(ExactAnswer(world, word_tokenizer), held, world, word_tokenizer)
    assert floor.num_pairs == 12
    assert floor.model_next_sentence_loss == pytest.approx(floor.next_sentence_loss, abs=1e-9)
    assert floor.model_next_sentence_accuracy == floor.next_sentence_accuracy
    assert 0.5 < floor.next_sentence_accuracy <= 1


def test_a_uniform_model_is_far_above_the_floor_on_the_same_tokens(world, word_tokenizer, objective, uniform_model):
    held = objective(word_tokenizer, 20, row_length=128, next_sentence=True)
    model = uniform_model(MiniLMForPreTraining, word_tokenizer).train()
    floor = masked_floor(model, held, world, word_tokenizer, max_sequences=9)
    assert model.training
    assert 7 < floor.num_sequences <= 9
    assert floor.model_nats_per_token == pytest.approx(math.log(len(word_tokenizer)), rel=1e-6)
    assert floor.nats_per_token < 1.5
    assert floor.next_sentence_loss < math.log(2)


def test_the_models_loss_is_that_of_its_packed_rows(world, word_tokenizer, objective, tiny_model):
    held = objective(word_tokenizer, 5, row_length=128)
    model = tiny_model(MiniLMForMaskedLM, word_tokenizer)
    with torch.no_grad():
        losses = [
            (model(**batch).loss.item(), int((batch["labels"] != -100).sum())) for batch in held.evaluation_batches(2)
        ]
    floor = masked_floor(model, held, world, word_tokenizer)
    assert floor.num_tokens == sum(count for _, count in losses)
    packed = sum(loss * count for loss, count in losses) / floor.num_tokens
    assert floor.model_nats_per_token == pytest.approx(packed, rel=1e-5)


def test_a_tokenizer_that_divides_words_gives_a_reason_instead_of_a_figure(
    world, piece_tokenizer, objective, uniform_model
):
    held = objective(piece_tokenizer, 5, row_length=256)
    reason = masked_floor(uniform_model(MiniLMForMaskedLM, piece_tokenizer), held, world, piece_tokenizer)
    assert reason == "The floor is known only where each token is one word, and the tokenizer divides words."


def test_cut_sentences_give_a_reason_instead_of_a_figure(world, word_tokenizer, objective, uniform_model):
    held = objective(word_tokenizer, 5, row_length=8)
    reason = masked_floor(uniform_model(MiniLMForMaskedLM, word_tokenizer), held, world, word_tokenizer)
    assert "whole sentences" in reason


def test_the_causal_floor_of_many_stories_is_the_entropy():
    world = World(seed=2)
    documents = list(world.documents(150, split="validation"))
    assert causal_floor(world, documents, 1000) * 1000 / 150 == pytest.approx(world.entropy, rel=0.03)
    assert causal_floor(world, documents[:7], 500) == pytest.approx(
        -sum(world.log_probability(document) for document in documents[:7]) / 500
    )


def test_a_document_from_elsewhere_has_no_causal_floor(world):
    document = next(World(("es",)).documents(1))
    with pytest.raises(ValueError, match="must be a story of the world"):
        causal_floor(world, [document], 10)
    with pytest.raises(ValueError, match=r"num_tokens \(0\)"):
        causal_floor(world, [], 0)
