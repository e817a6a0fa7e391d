"""Held-out text: against the packed measurement at the end of a training, and against transformers' own losses."""

import copy
import math

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    GPT2Config,
    GPT2LMHeadModel,
)

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.data.corpus import Corpus
from hf_minilm.data.sequences import IGNORED
from hf_minilm.data.tokenizer import token_bytes
from hf_minilm.evaluation.held_out_text import (
    HeldOutText,
    evaluate_held_out,
    evaluate_next_sentence,
    evaluate_pseudo_perplexity,
)
from hf_minilm.evaluation.language_model import held_out
from hf_minilm.evaluation.text_scores import TextScorer
from hf_minilm.evaluation.unpacking import unpacked_sequences

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def stories(tmp_path, world):
    path = tmp_path / "stories.txt"
    path.write_text("\n\n\n".join(story.text for story in world.documents(25)), encoding="utf-8")
    return str(path)


def bert(model_class, tokenizer):
    torch.manual_seed(2)
    return model_class(BertConfig(vocab_size=len(tokenizer), initializer_range=0.3, **SIZES)).eval()


def gpt2(tokenizer):
    torch.manual_seed(2)
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2)).eval()


@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForCausalLM])
def test_reading_one_by_one_gives_the_figures_of_packed_rows(
    tiny_model, piece_tokenizer, byte_tokenizer, stories, model_class
):
    tokenizer = byte_tokenizer if model_class is MiniLMForCausalLM else piece_tokenizer
    model = tiny_model(model_class, tokenizer)
    text = HeldOutText(stories, tokenizer, length=64)
    objective = text.causal() if model_class is MiniLMForCausalLM else text.masked()
    if model_class is MiniLMForCausalLM:
        # Packed rows are fed with their padding, and so need a token for it.
        objective._pad = tokenizer.pad_token_id
    packed = held_out(model, objective.evaluation_batches(3), token_bytes=token_bytes(tokenizer))
    figures = evaluate_held_out(model, tokenizer, text, seed=0, limit=None)
    assert figures["loss"].n == packed.num_tokens
    assert figures["loss"].value == pytest.approx(packed.nats_per_token, abs=1e-5)
    assert figures["perplexity"].value == pytest.approx(math.exp(packed.nats_per_token), rel=1e-5)
    assert figures["bits_per_byte"].value == pytest.approx(packed.bits_per_byte, abs=1e-5)
    for figure in figures.values():
        assert figure.low < figure.value < figure.high


def test_a_bert_of_transformers_is_measured_with_its_own_loss_of_the_same_masks(piece_tokenizer, stories):
    model, text = bert(BertForMaskedLM, piece_tokenizer), HeldOutText(stories, piece_tokenizer, length=64)
    nats = tokens = 0
    for window in unpacked_sequences(text.masked()):
        with torch.no_grad():
            loss = model(input_ids=window.input_ids[None], labels=window.labels[None]).loss.item()
        number = int((window.labels != IGNORED).sum())
        nats, tokens = nats + loss * number, tokens + number
    figures = evaluate_held_out(model, piece_tokenizer, text, seed=0, limit=None)
    assert figures["loss"].value == pytest.approx(nats / tokens, abs=1e-5)
    assert figures["loss"].n == tokens


def test_a_gpt2_whose_padding_and_begin_token_are_one_is_measured_with_its_own_loss(byte_tokenizer, stories):
    model, tokenizer = gpt2(byte_tokenizer), copy.deepcopy(byte_tokenizer)
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.bos_token
    text = HeldOutText(stories, tokenizer, length=64)
    nats = tokens = 0
    for window in unpacked_sequences(text.causal()):
        with torch.no_grad():
            loss = model(input_ids=window.input_ids[None], labels=window.input_ids[None]).loss.item()
        nats, tokens = nats + loss * (len(window.input_ids) - 1), tokens + len(window.input_ids) - 1
    figures = evaluate_held_out(model, tokenizer, text, seed=0, limit=None)
    assert figures["loss"].value == pytest.approx(nats / tokens, abs=1e-5)
    assert figures["loss"].n == tokens


def test_a_limit_takes_the_first_of_the_mixed_windows(tiny_model, piece_tokenizer, stories):
    model, text = tiny_model(MiniLMForMaskedLM, piece_tokenizer), HeldOutText(stories, piece_tokenizer, length=64)
    figures = evaluate_held_out(model, piece_tokenizer, text, seed=0, limit=2)
    labels = [window.labels for window, _ in zip(unpacked_sequences(text.masked()), range(2), strict=False)]
    assert figures["loss"].n == sum(int((each != IGNORED).sum()) for each in labels)


def test_the_whole_text_is_measured_or_the_part_that_a_training_holds_out(piece_tokenizer, stories, tmp_path):
    whole = [document.text for document in HeldOutText(stories, piece_tokenizer).documents()]
    part = [document.text for document in HeldOutText(stories, piece_tokenizer, part="validation").documents()]
    assert len(whole) == 25
    assert part == [document.text for document in Corpus([stories]).documents("validation")]
    assert set(part) < set(whole)
    (tmp_path / "one.txt").write_text("One paragraph alone.", encoding="utf-8")
    assert len(list(HeldOutText(str(tmp_path / "one.txt"), piece_tokenizer).documents())) == 1
    built_in = HeldOutText("builtin:world", piece_tokenizer).documents()
    assert next(built_in).text == next(Corpus(["builtin:world"]).documents("validation")).text


def test_an_empty_text_is_refused(tmp_path, piece_tokenizer):
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"empty\.txt\) must have text"):
        list(HeldOutText(str(tmp_path / "empty.txt"), piece_tokenizer).documents())


def test_pseudo_perplexity_is_that_of_the_sentences_scores(tiny_model, piece_tokenizer, stories):
    model, text = tiny_model(MiniLMForMaskedLM, piece_tokenizer), HeldOutText(stories, piece_tokenizer)
    scorer = TextScorer(model, piece_tokenizer)
    scores = scorer.score(text.sentences())
    loss = -sum(score.nats for score in scores) / sum(len(score.tokens) for score in scores)
    figures = evaluate_pseudo_perplexity(scorer, piece_tokenizer, text, seed=0, limit=10_000)
    assert figures["pseudo_loss"].value == pytest.approx(loss)
    assert figures["pseudo_perplexity"].value == pytest.approx(math.exp(loss))
    num_bytes = sum(token_bytes(piece_tokenizer)[list(score.tokens)].sum() for score in scores)
    nats = -sum(score.nats for score in scores)
    assert figures["pseudo_bits_per_byte"].value == pytest.approx(nats / math.log(2) / num_bytes)
    fewer = evaluate_pseudo_perplexity(scorer, piece_tokenizer, text, seed=0, limit=5)
    assert fewer["pseudo_loss"].n < figures["pseudo_loss"].n


@pytest.mark.parametrize("model_class", [MiniLMForPreTraining, BertForNextSentencePrediction])
def test_next_sentences_are_told_apart_as_the_model_tells_pair_by_pair(
    tiny_model, piece_tokenizer, stories, model_class
):
    build = tiny_model if model_class is MiniLMForPreTraining else bert
    model, text = build(model_class, piece_tokenizer), HeldOutText(stories, piece_tokenizer, length=64)
    right = []
    for pair in unpacked_sequences(text.masked(next_sentence=True)):
        if pair.next_sentence_label != IGNORED:
            with torch.no_grad():
                output = model(torch.tensor([pair.true_ids]), token_type_ids=pair.token_type_ids[None])
            logits = output.logits if model_class is BertForNextSentencePrediction else output.seq_relationship_logits
            right.append(int(logits[0].argmax()) == pair.next_sentence_label)
    figures = evaluate_next_sentence(model, text, limit=None)
    assert 0 < sum(right) < len(right)
    assert figures["accuracy"].value == pytest.approx(np.mean(right))
    assert figures["accuracy"].n == len(right)


def test_a_constant_next_sentence_head_scores_exactly_one_half(tiny_model, piece_tokenizer, stories):
    model = tiny_model(MiniLMForPreTraining, piece_tokenizer)
    torch.nn.init.zeros_(model.next_sentence.weight)
    torch.nn.init.zeros_(model.next_sentence.bias)
    text = HeldOutText(stories, piece_tokenizer, length=64)
    assert evaluate_next_sentence(model, text, limit=None)["accuracy"].value == 0.5


def test_a_model_without_a_next_sentence_head_is_refused(tiny_model, piece_tokenizer, stories):
    model = tiny_model(MiniLMForMaskedLM, piece_tokenizer)
    with pytest.raises(ValueError, match=r"model \(a MiniLMForMaskedLM\) must have a next-sentence head"):
        evaluate_next_sentence(model, HeldOutText(stories, piece_tokenizer, length=64), limit=None)
