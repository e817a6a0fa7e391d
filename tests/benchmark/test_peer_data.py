"""The peers' examples are the corpus, made as their users make them."""

from itertools import pairwise

import pytest
from transformers import DataCollatorForLanguageModeling

from hf_minilm.benchmark.peer_data import build_examples, grouped_rows
from hf_minilm.benchmark.working_folder import prepare
from hf_minilm.data.document import split_sentences
from hf_minilm.data.tokenizer import load_tokenizer

LENGTH = 24


@pytest.fixture
def documents(folder):
    return folder.documents()


@pytest.fixture
def tokenizer(folder, small_work):
    prepare(small_work("bert", "masked", data="paragraphs"), folder, vocabulary=400)
    return load_tokenizer(folder.tokenizer("masked"))


def test_each_paragraph_is_an_example_truncated(documents, tokenizer):
    examples = build_examples("paragraphs", documents, tokenizer, length=LENGTH, objective="masked")
    paragraphs = [paragraph for document in documents for paragraph in document.paragraphs]
    whole = [tokenizer(paragraph, truncation=True, max_length=LENGTH)["input_ids"] for paragraph in paragraphs]
    assert sorted(examples["input_ids"]) == sorted(whole)
    assert max(map(len, examples["input_ids"])) == LENGTH


def test_grouped_rows_are_full_and_hold_all_texts_in_order(documents, tokenizer):
    paragraphs = list(documents[0].paragraphs)
    rows = grouped_rows(paragraphs, tokenizer, length=LENGTH)["input_ids"]
    joined = [token for paragraph in paragraphs for token in tokenizer(paragraph)["input_ids"]]
    assert [token for row in rows for token in row] == joined[: len(joined) // LENGTH * LENGTH]


def test_half_of_the_pairs_are_consecutive_and_the_label_says_which(documents, tokenizer):
    examples = build_examples("pairs", documents, tokenizer, length=512, objective="masked_next_sentence")
    sentences = [
        [paragraph[start:stop] for paragraph in document.paragraphs for start, stop in split_sentences(paragraph)]
        for document in documents
    ]
    following = {tuple(tokenizer(first, second)["input_ids"]) for each in sentences for first, second in pairwise(each)}
    labelled = list(zip(map(tuple, examples["input_ids"]), examples["next_sentence_label"], strict=True))
    true_pairs = [ids for ids, label in labelled if not label]
    assert 0.4 < len(true_pairs) / len(examples) < 0.6
    assert following.issuperset(true_pairs)
    others = [ids for ids, label in labelled if label]
    assert sum(pair in following for pair in others) < 0.1 * len(others)


def test_filled_pairs_fill_their_rows_and_the_label_says_whether_one_text_goes_on(documents, tokenizer):
    length = 48
    examples = build_examples("filled_pairs", documents, tokenizer, length=length, objective="masked_next_sentence")
    texts = [
        tokenizer(" ".join(document.paragraphs), add_special_tokens=False)["input_ids"] + [-1] for document in documents
    ]
    everything = "".join(f" {token}" for text in texts for token in text) + " "
    sizes = list(map(len, examples["input_ids"]))
    assert max(sizes) == length
    assert sum(sizes) > 0.9 * length * len(examples)
    assert 0.3 < sum(examples["next_sentence_label"]) / len(examples) < 0.7
    coincidences = 0
    for ids, types, label in zip(
        examples["input_ids"], examples["token_type_ids"], examples["next_sentence_label"], strict=True
    ):
        first, second = (
            [token for token, side in zip(ids[1:-1], types[1:-1], strict=True) if side == wanted] for wanted in (0, 1)
        )
        first = first[:-1]  # [SEP]
        assert first
        assert second
        goes_on = "".join(f" {token}" for token in first + second) + " " in everything
        assert goes_on or label
        coincidences += goes_on and label  # a few tokens at the end of a row may follow elsewhere
        assert "".join(f" {token}" for token in second) + " " in everything
    assert coincidences < 0.1 * len(examples)


def test_the_collator_pads_pairs_to_the_longest_of_the_batch_with_a_label_each(documents, tokenizer):
    examples = build_examples("pairs", documents, tokenizer, length=64, objective="masked_next_sentence")
    batch = DataCollatorForLanguageModeling(tokenizer)([examples[index] for index in range(4)])
    assert batch["next_sentence_label"].shape == (4,)
    assert batch["attention_mask"].sum() == sum(map(len, examples[:4]["input_ids"]))
    assert batch["input_ids"].shape[1] == max(map(len, examples[:4]["input_ids"]))


def test_a_corpus_too_short_for_a_row_is_refused(documents, tokenizer):
    with pytest.raises(ValueError, match=r"examples of 500000 tokens \(0\) must be at least 1"):
        build_examples("grouped", documents, tokenizer, length=500_000, objective="masked")
