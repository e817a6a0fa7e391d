"""Texts with labels from files: classes of texts, tags of words, and answers to questions."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.readers import decoded_pieces, suffix_of, whole_lines
from .pair_files import file_records, source_files, text_of

_RECORD_SUFFIXES = tuple(
    f"{suffix}{zipped}" for suffix in (".jsonl", ".json", ".csv", ".tsv") for zipped in ("", ".gz")
)
_TAG_COLUMNS = {".conllu": (1, 3), ".iob2": (1, 2), ".conll": (0, -1)}
_DOCUMENT_START = "-DOCSTART-"  # a line of CoNLL 2003 between two documents, and no word of a sentence
_TAG_SUFFIXES = tuple(f"{suffix}{zipped}" for suffix in (".jsonl", ".json", *_TAG_COLUMNS) for zipped in ("", ".gz"))
_QUESTION_SUFFIXES = (".json", ".json.gz")


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text, maybe a second one beside it, and its class: a name, or a number."""

    text: str
    second: str | None
    label: str | int | float


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """The words of a sentence, and a tag for each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the text that its answer is a part of, and the right answers."""

    question: str
    context: str
    answers: tuple[str, ...]


def read_labelled_texts(source: str) -> Iterator[LabelledText]:
    """Read records with `text` (or `sentence`), maybe `text_pair`, and `label`, from JSON, CSV or TSV.

    Raises:
        ValueError: If a record is malformed; the message names the place.
        FileNotFoundError: If there is no such file.
    """
    for path in source_files(source, _RECORD_SUFFIXES):
        for place, record in file_records(path):
            second = text_of(record, ("text_pair",), place) if "text_pair" in record else None
            label = record.get("label")
            if not isinstance(label, str | int | float):
                raise ValueError(f"{place}: label ({label!r:.40}) must be a name or a number; correct it.")
            yield LabelledText(text_of(record, ("text", "sentence"), place), second, label)


def read_tagged_sentences(source: str) -> Iterator[TaggedSentence]:
    """Read sentences of words with tags.

    `.jsonl` and `.json` have `tokens` and `tags`, two lists, in each record. `.conllu` has the word in the second
    column and the tag in the fourth (its universal part of speech), `.iob2` in the second and the third, `.conll` in
    the first and the last; a blank line ends a sentence. Lines that begin with # say something about a sentence, but
    in `.conll`; multi-word tokens and empty nodes of CoNLL-U (`1-2`, `1.1`) are left out.

    Raises:
        ValueError: If a sentence is malformed; the message names the place.
        FileNotFoundError: If there is no such file.
    """
    for path in source_files(source, _TAG_SUFFIXES):
        kind = (suffix_of(path, _TAG_SUFFIXES) or "").removesuffix(".gz")
        yield from _columns_of_tags(path, kind) if kind in _TAG_COLUMNS else _records_of_tags(path)


def read_questions(source: str) -> Iterator[Question]:
    """Read questions in the JSON of SQuAD, in which MLQA comes too.

    Raises:
        ValueError: If the file has another form, or a question no answer.
        FileNotFoundError: If there is no such file.
    """
    for path in source_files(source, _QUESTION_SUFFIXES):
        text = "".join(decoded_pieces(path, "strict"))
        try:
            yield from _questions_in(json.loads(text), path)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"file ({path}) must be JSON as SQuAD's; correct it ({error!r:.80}).") from error


def _questions_in(squad: Any, path: Path) -> Iterator[Question]:
    for article in squad["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answers = tuple(answer["text"] for answer in asked["answers"])
                if not answers:
                    raise ValueError(f"{path}: answers of {asked['id']} (none) must be at least 1; leave it out.")
                yield Question(asked["question"], paragraph["context"], answers)


def _records_of_tags(path: Path) -> Iterator[TaggedSentence]:
    for place, record in file_records(path):
        words, tags = _texts(record, "tokens", place), _texts(record, "tags", place)
        if len(words) != len(tags):
            raise ValueError(f"{place}: tags ({len(tags)}) must be as many as tokens ({len(words)}); correct them.")
        yield TaggedSentence(words, tags)


def _texts(record: Mapping[str, object], key: str, place: str) -> tuple[str, ...]:
    value = record.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{place}: {key} ({value!r:.40}) must be a list of texts; correct it.")
    return tuple(value)


def _columns_of_tags(path: Path, kind: str) -> Iterator[TaggedSentence]:
    word_column, tag_column = _TAG_COLUMNS[kind]
    has_numbers = kind != ".conll"
    words: list[str] = []
    tags: list[str] = []
    for number, line in whole_lines(decoded_pieces(path, "strict"), path):
        if not line.strip() or (not has_numbers and line.split()[0] == _DOCUMENT_START):
            if words:
                yield TaggedSentence(tuple(words), tuple(tags))
            words, tags = [], []
            continue
        if has_numbers and line.startswith("#"):
            continue
        cells = line.rstrip("\r\n").split("\t") if has_numbers else line.split()
        if has_numbers and not cells[0].isdigit():
            continue
        if len(cells) <= max(word_column, tag_column, 1):
            raise ValueError(f"{path}:{number}: columns ({len(cells)}) must have a word and a tag; correct the line.")
        words.append(cells[word_column])
        tags.append(cells[tag_column])
    if words:
        yield TaggedSentence(tuple(words), tuple(tags))
