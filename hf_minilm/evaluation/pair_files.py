"""Minimal pairs from files: a good and a bad sentence each, in the forms in which they are published.

- `.jsonl`, `.json`: a record a pair, with `sentence_good` and `sentence_bad` (BLiMP, Warstadt et al. 2020) or `good`
  and `bad`.
- `.csv`, `.tsv`: columns of those names.
- `.txt`: the bad sentence on an odd line, the good one on the line after it (Zorro, Huebner et al. 2021).

Each may be compressed, with `.gz` at its end. A pair's paradigm stands under `UID`, `paradigm` or `phenomenon`; where
there is none of these it is the file's name.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..data.readers import clean_value, decoded_pieces, json_records, shown_keys, suffix_of, whole_lines
from ..data.sources import SourceFile, resolve_sources

_SUFFIXES = tuple(
    suffix + compressed for suffix in (".jsonl", ".json", ".csv", ".tsv", ".txt") for compressed in ("", ".gz")
)
_GOOD, _BAD = ("sentence_good", "good"), ("sentence_bad", "bad")
_PARADIGM = ("UID", "paradigm", "phenomenon")


@dataclass(frozen=True, slots=True)
class SentencePair:
    """A minimal pair.

    Attributes:
        paradigm: What the pair asks.
        good: The sentence that speakers accept.
        bad: The one that they do not.
    """

    paradigm: str
    good: str
    bad: str


def read_pairs(source: str) -> Iterator[SentencePair]:
    """Read the pairs of a file, or of all files of a folder or a pattern in the order of their names.

    Raises:
        ValueError: If a file has another form, or a pair lacks a sentence; the message names the place.
        FileNotFoundError: If there is no such file.
    """
    for path in source_files(source, _SUFFIXES):
        yield from _pairs_of(path)


def source_files(source: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files that a path, a folder or a pattern names, those with a known suffix.

    Raises:
        ValueError: If the suffix is unknown, or the folder has no file with a known one.
        FileNotFoundError: If there is none.
    """
    if source.startswith(("builtin:", "hub:")):
        raise ValueError(f"source ({source}) must be a file, a folder or a pattern here; name one.")
    parts, _ = resolve_sources([source], builtins=(), suffixes=suffixes)
    return [part.path for part in parts if isinstance(part, SourceFile)]


def table_records(path: Path, *, delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Iterate over the rows of a CSV or TSV file by their columns' names, with the number of each row's last line.

    Blank lines are passed over.

    Raises:
        ValueError: If the file is no UTF-8, or a row has more or fewer cells than there are columns.
    """
    lines = (line for _, line in whole_lines(decoded_pieces(path, "strict"), path))
    if delimiter == "\t":  # where a quotation mark is an ordinary character
        reader = csv.reader(lines, quoting=csv.QUOTE_NONE, delimiter=delimiter)
    else:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        rows = (cells for cells in reader if len(cells) > 1 or "".join(cells).strip())
        names = next(rows, [])
        for cells in rows:
            if len(cells) != len(names):
                raise ValueError(f"{path}:{reader.line_num}: cells ({len(cells)}) must be {len(names)}; correct it.")
            yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: row must be CSV; correct it ({error}).") from error


def file_records(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Iterate over the records of a JSON, CSV or TSV file, each with the name of its place.

    Raises:
        ValueError: If a record is malformed.
    """
    suffix = suffix_of(path, _SUFFIXES) or ""
    numbered: Iterator[tuple[int, object]]
    if suffix.startswith((".csv", ".tsv")):
        numbered = table_records(path, delimiter="\t" if suffix.startswith(".tsv") else ",")
    else:
        numbered = json_records(path, encoding_errors="strict")
    for number, record in numbered:
        place = f"{path}:{number}"
        if not isinstance(record, Mapping):
            raise ValueError(f"{place}: record ({type(record).__name__}) must be an object; give it keys.")
        yield place, record


def text_of(record: Mapping[str, object], names: tuple[str, ...], place: str) -> str:
    """Return the text under the first of some keys that a record has, without white space around it.

    Raises:
        ValueError: If there is none, or it is empty or no text.
    """
    key = next((name for name in names if name in record), None)
    if key is None:
        raise ValueError(f"{place}: keys ({shown_keys(record)}) must have {' or '.join(names)}; rename the key.")
    value = record[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place}: {key} ({value!r:.40}) must be a text; correct it.")
    return clean_value(value, f"{place}: {key}").strip()


def _pairs_of(path: Path) -> Iterator[SentencePair]:
    suffix = suffix_of(path, _SUFFIXES) or ""
    name = path.name[: -len(suffix)]
    if suffix.startswith(".txt"):
        yield from _alternating(path, name)
        return
    for place, record in file_records(path):
        paradigm = name
        if any(key in record for key in _PARADIGM):
            paradigm = text_of(record, _PARADIGM, place)
        yield SentencePair(paradigm, text_of(record, _GOOD, place), text_of(record, _BAD, place))


def _alternating(path: Path, paradigm: str) -> Iterator[SentencePair]:
    bad, number = None, 0
    for number, line in whole_lines(decoded_pieces(path, "strict"), path):
        sentence = clean_value(line, f"{path}:{number}").strip()
        if not sentence:
            raise ValueError(f"{path}:{number}: line must be a sentence; remove the blank line.")
        if bad is None:
            bad = sentence
        else:
            yield SentencePair(paradigm, sentence, bad)
            bad = None
    if bad is not None:
        raise ValueError(
            f"{path}: lines ({number}) must be even, a bad and a good sentence in turn; add the missing one."
        )
