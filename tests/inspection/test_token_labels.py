"""Labels are what a reader would write, whatever marks and bytes the tokenizer has, and hide nothing."""

import pytest

from hf_minilm.data.document import Document
from hf_minilm.data.tokenizer import train_tokenizer
from hf_minilm.inspection.token_labels import LONGEST, token_labels

TEXT = "La niña comió allí, y el señor José no."
KINDS = ("wordpiece", "bytelevel_bpe", "unigram")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    texts = [TEXT, "Una niña y un niño comieron allí.", "El señor no comió."] * 3
    documents = [Document((text,), source="here") for text in texts]
    return train_tokenizer(documents, kind=request.param, vocab_size="auto")


def labels(tokenizer, text):
    return token_labels(tokenizer, tokenizer(text)["input_ids"])


def test_labels_put_together_are_the_words_with_their_accents(tokenizer):
    written = ""
    for label in labels(tokenizer, TEXT):
        if not label.is_special:
            written += label.text.removeprefix("##") if label.text.startswith("##") else " " + label.text
    # Unigram has spaces of their own, which are shown.
    assert written.replace(" ␣", "").replace(" ,", ",").replace(" .", ".").strip() == TEXT


def test_special_tokens_are_told_apart(tokenizer):
    special = [label.text for label in labels(tokenizer, "La niña comió.") if label.is_special]
    assert special in (["[CLS]", "[SEP]"], ["<s>"])


def test_no_label_has_a_mark_of_a_tokenizer_or_an_invisible_character(tokenizer):
    for label in labels(tokenizer, f"{TEXT} \u202e\u2028x\ty\n<b>"):
        assert label.text.isprintable()
        assert not set(label.text) & set("ĠÃ▁")
        assert label.text.strip()


@pytest.fixture(scope="module")
def in_bytes():
    return train_tokenizer([Document(("a b c d e f",), source="here")], kind="bytelevel_bpe", vocab_size="auto")


def test_a_part_of_a_character_is_written_as_its_byte(in_bytes):
    assert [label.text for label in labels(in_bytes, "ñ")][1:] == [r"\xc3", r"\xb1"]


def test_what_cannot_be_seen_is_written_so_that_it_can(in_bytes):
    shown = [label.text for label in labels(in_bytes, " a\n\t\x07")][1:]
    assert shown[-3:] == ["⏎", "⇥", "⟨U+0007⟩"]
    assert "a" in shown


def test_a_very_long_token_is_cut():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"x" * 500: 0, "y": 1}, "y")))
    assert [label.text for label in token_labels(plain, [0, 1])] == ["x" * (LONGEST - 1) + "…", "y"]
