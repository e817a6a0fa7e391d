"""The peers' examples, made from the same documents as ours in the way that their users make them."""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..data.document import Document, split_sentences
from .work import ObjectiveName, PeerData

_TEXTS_AT_ONCE = 1000
_SEED = 0

Columns = dict[str, list[Any]]


def build_examples(
    data: PeerData,
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    objective: ObjectiveName,
) -> Dataset:
    """Make the examples of a peer, in random order, so that the first ones stand for all.

    Args:
        data: `pairs`, `filled_pairs`, `paragraphs` or `grouped`, see the functions below.
        documents: The corpus.
        tokenizer: The one of ours too.
        length: Most tokens of an example.
        objective: With masked ones the special tokens are marked for the collator, as `run_mlm.py` does.

    Raises:
        ValueError: If the documents give no example.
    """
    paragraphs = [paragraph for document in documents for paragraph in document.paragraphs]
    marks: dict[str, Any] = {"return_special_tokens_mask": objective != "causal"}
    if data == "pairs":
        columns = sentence_pairs(documents, tokenizer, length=length, **marks)
    elif data == "filled_pairs":
        columns = filled_pairs(documents, tokenizer, length=length, **marks)
    elif data == "paragraphs":
        columns = separate_paragraphs(paragraphs, tokenizer, length=length, **marks)
    else:
        columns = grouped_rows(paragraphs, tokenizer, length=length, **marks)
    number = len(columns["input_ids"])
    if number == 0:
        raise ValueError(f"examples of {length} tokens (0) must be at least 1; give a longer --corpus.")
    order = random.Random(_SEED).sample(range(number), number)
    return Dataset.from_dict({name: [values[index] for index in order] for name, values in columns.items()})


def separate_paragraphs(
    paragraphs: Iterable[str], tokenizer: PreTrainedTokenizerBase, *, length: int, **options: Any
) -> Columns:
    """Make an example of each paragraph, truncated: `run_mlm.py --line_by_line`, padded later to a batch's longest."""
    return _tokenised(list(paragraphs), tokenizer, truncation=True, max_length=length, **options)


def grouped_rows(
    paragraphs: Iterable[str], tokenizer: PreTrainedTokenizerBase, *, length: int, **options: Any
) -> Columns:
    """Join all paragraphs, special tokens and all, and cut them into full rows: `run_mlm.py` and `run_clm.py`.

    A row begins and ends anywhere in a text, and attention sees every text in it. The last part row is dropped.
    """
    texts = _tokenised(list(paragraphs), tokenizer, **options)
    texts.pop("token_type_ids", None)
    joined = {name: list(chain.from_iterable(values)) for name, values in texts.items()}
    total = len(joined["input_ids"]) // length * length
    return {
        name: [values[start : start + length] for start in range(0, total, length)] for name, values in joined.items()
    }


def sentence_pairs(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, *, length: int, **options: Any
) -> Columns:
    """Make pairs of a sentence and, by a coin, the next one of its text (0) or one from elsewhere (1).

    What tutorials of BERT's pre-training with Trainer do: `tokenizer(first, second, truncation=True)`.
    """
    draw = random.Random(_SEED)
    consecutive = list(_consecutive_sentences(documents))
    firsts, seconds, labels = [], [], []
    for first, second in consecutive:
        label = draw.randrange(2)
        firsts.append(first)
        seconds.append(draw.choice(consecutive)[1] if label else second)
        labels.append(label)
    columns = _tokenised(firsts, tokenizer, seconds, truncation=True, max_length=length, **options)
    return {**columns, "next_sentence_label": labels}


def filled_pairs(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, *, length: int, **options: Any
) -> Columns:
    """Make pairs of segments of several sentences that fill a row together, as BERT's own script does.

    The sentences that fill a row are parted at random between two of them. By a coin the second segment is what follows
    (0), or what follows a random sentence of another document (1); then what was not used begins the next pair.
    """
    draw = random.Random(_SEED)
    texts = [text for document in documents if (text := _measured_sentences(document, tokenizer))]
    firsts, seconds, labels = [], [], []
    for own, text in enumerate(texts):
        start = 0
        while start < len(text):
            stop = _end_of_row(text, start, length)
            if stop - start < 2:
                start = stop
                continue
            middle = draw.randrange(start + 1, stop)
            label = draw.randrange(2) if len(texts) > 1 else 0
            firsts.append(_joined(text[start:middle]))
            if label:
                other = texts[(own + draw.randrange(1, len(texts))) % len(texts)]
                begin = draw.randrange(len(other))
                seconds.append(_joined(other[begin : _end_of_row(other, begin, length)]))
            else:
                seconds.append(_joined(text[middle:stop]))
            labels.append(label)
            start = middle if label else stop
    columns = _tokenised(firsts, tokenizer, seconds, truncation="only_second", max_length=length, **options)
    return {**columns, "next_sentence_label": labels}


_Measured = list[tuple[str, int]]
"""Sentences, each with its number of tokens."""


def _measured_sentences(document: Document, tokenizer: PreTrainedTokenizerBase) -> _Measured:
    sentences = list(_sentences(document))
    ids = _tokenised(sentences, tokenizer, add_special_tokens=False)["input_ids"]
    return list(zip(sentences, map(len, ids), strict=True))


def _end_of_row(text: _Measured, start: int, length: int) -> int:
    """Say where the sentences end that fill a row from one on; the last of them may be too long for it."""
    tokens = 3  # [CLS] and two [SEP]
    for stop, (_, size) in enumerate(text[start:], start + 1):
        tokens += size
        if tokens >= length:
            return stop
    return len(text)


def _joined(text: _Measured) -> str:
    return " ".join(sentence for sentence, _ in text)


def _consecutive_sentences(documents: Iterable[Document]) -> Iterator[tuple[str, str]]:
    """Iterate over the sentences of each document two by two, each in one pair."""
    for document in documents:
        sentences = _sentences(document)
        yield from zip(sentences, sentences, strict=False)


def _sentences(document: Document) -> Iterator[str]:
    for paragraph in document.paragraphs:
        for start, stop in split_sentences(paragraph):
            yield paragraph[start:stop]


def _tokenised(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, seconds: list[str] | None = None, **options: Any
) -> Columns:
    columns: Columns = {"input_ids": []}
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = slice(start, start + _TEXTS_AT_ONCE)
        # Warned of texts longer than the model, which are about to be cut into rows.
        encoded = tokenizer(texts[part], None if seconds is None else seconds[part], verbose=False, **options)
        for name, values in encoded.items():
            columns.setdefault(name, []).extend(values)
    return columns
