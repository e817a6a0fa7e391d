"""The example that tags words aligns tags with tokens, and learns names and functions."""

import re
from pathlib import Path

import datasets
import pytest
import tag_words
from fine_tune import open_tokenizer
from transformers import AutoModelForTokenClassification, pipeline

SCRIPT = Path(tag_words.__file__)
SENTENCES = [{"tokens": ["Elena", "unexplainably", "walks", "."], "tags": ["B-PER", "O", "O", "O"]}]


@pytest.fixture
def encoded(encoder: Path):
    parts = datasets.DatasetDict({"test": datasets.Dataset.from_list(SENTENCES)})

    def encode(max_length: int) -> datasets.Dataset:
        return tag_words.encode(parts, open_tokenizer(encoder), {"B-PER": 0, "O": 1}, max_length)["test"]

    return encode


def test_the_first_token_of_a_word_has_its_tag_and_all_others_none(encoded, encoder: Path) -> None:
    row = encoded(64)[0]
    tokens = open_tokenizer(encoder).convert_ids_to_tokens(row["input_ids"])
    tagged = [(token, label) for token, label in zip(tokens, row["labels"], strict=True) if label != -100]
    assert len(tokens) > 8  # a word was divided
    assert [label for _, label in tagged] == [0, 1, 1, 1]
    assert not any(token.startswith("##") for token, _ in tagged)
    assert "".join(token.removeprefix("##") for token in tokens[1:-1]) == "".join(SENTENCES[0]["tokens"])


def test_tags_come_back_to_the_words_that_they_were_given_to(encoded) -> None:
    rows = encoded(64)
    labels = [[1 if label == -100 else label for label in row] for row in rows["labels"]]
    assert tag_words.tags_of_words(labels, rows, ["B-PER", "O"]) == [SENTENCES[0]["tags"]]


def test_a_word_that_was_cut_off_is_no_name_and_its_part_of_speech_is_wrong(encoded) -> None:
    rows = encoded(4)
    all_names = [[0] * len(row) for row in rows["labels"]]
    tags = tag_words.tags_of_words(all_names, rows, ["NOUN", "VERB"])
    assert tags == [["NOUN", "NOUN", "O", "O"]]
    assert tag_words.score(tags, [["NOUN"] * 4]).value == 0.5


def test_names_are_scored_whole_and_other_tags_by_words() -> None:
    right = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC", "B-LOC"], ["O"]]
    said = [["B-PER", "O", "O", "B-LOC"], ["I-PER", "B-LOC", "I-LOC"], ["B-PER"]]
    score = tag_words.score(said, right)
    # Said are 5 names, right are 4: the persons differ in their ends, LOC of the first sentence alone is found.
    assert score.value == pytest.approx(2 * 1 / (5 + 4))
    words = tag_words.score([["DET", "X"], ["VERB"]], [["DET", "NOUN"], ["VERB"]])
    assert (words.name, words.value) == ("words right", pytest.approx(2 / 3))


def test_names_in_stories_are_learnt_and_the_tagger_opens_in_a_pipeline(
    encoder: Path, tmp_path: Path, run_script
) -> None:
    options = ("--limit", 300, "--epochs", 4, "--learning-rate", 4e-3, "--batch-size", 16, "--output", tmp_path)
    code, printed, errors = run_script(encoder, *options)
    assert code == 0, errors
    name, value = re.search(r"(F1 of names) ([\d.]+) \(", printed).groups()
    assert (name, float(value) > 0.8) == ("F1 of names", True), printed
    model = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert sorted(model.config.label2id) == ["B-LOC", "B-PER", "I-LOC", "O"]
    tagger = pipeline("token-classification", model=model, tokenizer=open_tokenizer(encoder))
    assert "Emma" in [found["word"] for found in tagger("Emma walks to the pantry with Henry.")]


def test_parts_of_speech_are_read_from_universal_dependencies(encoder: Path, tmp_path: Path, run_script) -> None:
    lines = ["1\tthe\tthe\tDET\t_\t_\t0\t_\t_\t_", "2\tkey\tkey\tNOUN\t_\t_\t0\t_\t_\t_", ""]
    (tmp_path / "a.conllu").write_text("\n".join(lines * 40), encoding="utf-8")
    options = ("--epochs", 4, "--learning-rate", 4e-3, "--batch-size", 4, "--output", tmp_path / "out")
    code, printed, errors = run_script(encoder, tmp_path / "a.conllu", *options)
    assert code == 0, errors
    assert "words right 1.000" in printed
    assert "0.500 of the words are DET" in printed
