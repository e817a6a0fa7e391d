"""Filled masks and continued texts."""

import copy

import pytest
import torch

from hf_minilm import (
    MiniLMForCausalLM,
    MiniLMForConditionalGeneration,
    MiniLMForMaskedLM,
    MiniLMForPreTraining,
    MiniLMSeq2SeqConfig,
)
from hf_minilm.data.document import Document
from hf_minilm.data.tokenizer import train_tokenizer
from hf_minilm.data.world import World
from hf_minilm.evaluation.samples import (
    MaskedSentence,
    fill_gaps,
    fill_masks,
    generate_texts,
    held_out_beginnings,
    held_out_sentences,
    lecture_sentences,
)


def test_the_lectures_sentences_are_two_spanish_and_one_english_with_their_best_answer_first():
    spanish, pronoun, english = lecture_sentences(World())
    assert all(sentence.text.count("[MASK]") == 1 for sentence in (spanish, pronoun, english))
    assert pronoun.answers[0] == "Ella"
    assert english.answers[0] == "are"


def test_one_word_is_masked_in_a_sentence_of_each_document():
    documents = [
        Document(("Too short.", "The old lighthouse keeper counted every ship."), "a:1"),
        Document(("12 + 34 = 46, 56 + 78 = 134, 90 + 12 = 102.",), "a:2"),
        Document(("Nobody has ever seen the garden behind it. And so on.",), "a:3"),
        Document(("A third document with yet another sentence.",), "a:4"),
    ]
    found = held_out_sentences(documents, number=2)
    assert [sentence.text.replace("[MASK]", sentence.answers[0]) for sentence in found] == [
        "The old lighthouse keeper counted every ship.",
        "Nobody has ever seen the garden behind it.",
    ]


def test_texts_begin_with_the_first_words_of_a_readable_sentence_of_each_document():
    documents = [
        Document(("Short.", "The old lighthouse keeper counted every ship."), "a:1"),
        Document(("None.",), "a:2"),
        Document(("Nobody has ever seen the garden behind it.",), "a:3"),
        Document(("Another sentence of a third document.",), "a:4"),
    ]
    assert held_out_beginnings(documents, number=2, num_words=4) == (
        "The old lighthouse keeper",
        "Nobody has ever seen",
    )


@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForPreTraining])
def test_the_likeliest_tokens_come_first_with_their_probabilities(tiny_model, word_tokenizer, model_class):
    model = tiny_model(model_class, word_tokenizer)
    (filled,) = fill_masks(model, word_tokenizer, [MaskedSentence("The keys [MASK] old.", ("are",))], top=4)
    ids = word_tokenizer("The keys [MASK] old.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        output = model(input_ids=ids)
    logits = output.prediction_logits if model_class is MiniLMForPreTraining else output.logits
    shares, tokens = logits[0, 3].softmax(-1).sort(descending=True)
    assert [word for word, _ in filled.guesses] == word_tokenizer.convert_ids_to_tokens(tokens[:4].tolist())
    assert [share for _, share in filled.guesses] == pytest.approx(shares[:4].tolist())
    assert filled.answers == ("are",)


def test_a_sentence_without_a_mask_is_refused(tiny_model, word_tokenizer):
    with pytest.raises(ValueError, match=r"must have one \[MASK\]"):
        fill_masks(tiny_model(MiniLMForMaskedLM, word_tokenizer), word_tokenizer, [MaskedSentence("The keys.")])


def test_texts_are_continued_with_the_likeliest_tokens(tiny_model, byte_tokenizer):
    model = tiny_model(MiniLMForCausalLM, byte_tokenizer)
    prompts = ["The old keys", ""]
    texts = generate_texts(model, byte_tokenizer, prompts, max_new_tokens=6)
    assert texts == generate_texts(model, byte_tokenizer, prompts, max_new_tokens=6)
    for prompt, text in zip(prompts, texts, strict=True):
        ids = [byte_tokenizer.bos_token_id, *byte_tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        new = []
        while len(new) < 6 and (not new or new[-1] != byte_tokenizer.eos_token_id):
            with torch.no_grad():
                new.append(model(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax().item())
        assert text.prompt == prompt
        assert text.continuation == byte_tokenizer.decode(new, skip_special_tokens=True)


def test_a_prompt_that_fills_the_models_positions_is_not_continued(tiny_model, byte_tokenizer):
    model = tiny_model(MiniLMForCausalLM, byte_tokenizer)
    model.config.max_position_embeddings = 4
    (text,) = generate_texts(model, byte_tokenizer, ["The old keys to the cabinet are old."])
    assert text.continuation == ""


def test_a_model_whose_tokenizer_has_no_begin_token_begins_as_it_was_trained_to(tiny_model, byte_tokenizer):
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.bos_token = None
    model = tiny_model(MiniLMForCausalLM, tokenizer)
    prompt = "The old keys"
    (text,) = generate_texts(model, tokenizer, [prompt], max_new_tokens=1)
    ids = [tokenizer.eos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        likeliest = model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item()
    assert text.continuation == tokenizer.decode([likeliest], skip_special_tokens=True)


def test_sentences_beyond_a_models_table_of_positions_are_not_asked_for(tiny_model, word_tokenizer):
    model = tiny_model(MiniLMForMaskedLM, word_tokenizer, position_embedding="learned")
    sentences = [MaskedSentence("The keys [MASK] old."), MaskedSentence("The keys " * 127 + "[MASK] old.")]
    (filled,) = fill_masks(model, word_tokenizer, sentences)
    assert filled.text == sentences[0].text


def test_gaps_beyond_an_encoders_table_of_positions_are_not_filled(world):
    documents = list(world.documents(100))
    tokenizer = train_tokenizer(
        documents, kind="bytelevel_bpe", vocab_size="auto", for_pairs=True, num_sentinels=3, max_length=10
    )
    overrides = {"position_embedding": "learned", "max_position_embeddings": 10}
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = MiniLMSeq2SeqConfig.preset("vaswani2017", "tiny", vocab_size=len(tokenizer), **ids, **overrides)
    sentences = [MaskedSentence("Ana [MASK] old.", ("is",)), MaskedSentence("The keys [MASK] old. " * 9, ("are",))]
    filled = fill_gaps(MiniLMForConditionalGeneration(config).eval(), tokenizer, sentences)
    assert [(each.source, each.target) for each in filled] == [("Ana <extra_id_0> old.", "is")]
