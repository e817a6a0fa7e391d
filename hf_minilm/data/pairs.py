"""A corpus of text pairs: a source and a target each, from files, Hub data sets and the built-in stories.

Which pairs are held out depends on nothing but the source text: those whose hash falls under the share. So two pairs
with the same source are never on both sides, both parts can be streamed, and more pairs move none of the others.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .corpus import falls_under
from .limits import LONGEST_PARAGRAPH, REPLACED, Replacements
from .readers import (
    HubDataset,
    clean,
    clean_value,
    decoded_pieces,
    json_records,
    parquet_records,
    shown_keys,
    suffix_of,
    whole_lines,
)
from .sources import SAMPLED_STORIES, Part, SourcedCorpus, SourceFile, Split, name_of
from .world import check_split
from .world_pairs import WorldPairs

BUILTIN_PAIRS = "builtin:pairs"
PAIR_SUFFIXES = (".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
_LONG_SIDE = f"pairs with a side of over {LONGEST_PARAGRAPH:,} characters"
_COLUMNS = ("source", "target")  # of a TSV file without a header, and of the built-in stories
_NESTED_KEY = "translation"  # holds the texts of each language in the Hub's translation data sets
# Part of every fingerprint: a change in how sources become pairs needs another number.
_READING_VERSION = 1


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and what a model shall write when it has read it.

    Attributes:
        source: What the encoder reads, on one line.
        target: What the decoder writes, on one line.
    """

    source: str
    target: str


class PairCorpus(SourcedCorpus):
    """The pairs that an encoder-decoder is trained and evaluated on.

    Records of JSON, Parquet and the Hub have the two texts under the names in `fields`, or in an object `translation`
    that does. A TSV file has them in columns, without any quoting: a tab separates them and a line break ends them. Its
    first line is a header if both names of `fields` are in it; else there is none, and the columns are `source`,
    `target` and others that are ignored. In every text control characters become spaces, and white space one space.

    Args:
        sources: Files, folders (read recursively), globs, `hub:owner/name[:configuration][@split]` and
            `builtin:pairs` (stories, Spanish the source and English the target), in order, those stories first. What
            two of them name is read once. Hidden files in folders are ignored.
        fields: The names of the source and of the target; ("target", "source") turns the direction of the built-in
            stories and of a TSV file without a header.
        encoding_errors: "strict", or "replace" to put U+FFFD in the place of the few bytes that are not UTF-8; a text
            in another encoding is refused, see `limits.Replacements`.
        world_documents: Training pairs of `builtin:pairs`. Held out are `validation_share` of that number, at least
            200, drawn independently.
        validation_share: Share of the pairs held out, in (0, 1).
        seed: Seed of `builtin:pairs`.

    Raises:
        ValueError: a source has no known form or suffix, a folder has no file to read, or a setting is out of range.
        FileNotFoundError: a path does not exist, or a glob matches nothing.
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        fields: tuple[str, str] = _COLUMNS,
        encoding_errors: str = "strict",
        world_documents: int = 20_000,
        validation_share: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(
            sources,
            builtins=(BUILTIN_PAIRS,),
            suffixes=PAIR_SUFFIXES,
            encoding_errors=encoding_errors,
            world_documents=world_documents,
            validation_share=validation_share,
        )
        self._fields = _checked_fields(fields)
        self._world = WorldPairs(seed=seed) if BUILTIN_PAIRS in sources else None
        self._seed = seed
        self._is_builtin = list(sources) == [BUILTIN_PAIRS]
        if self._world is not None and set(self._fields) != set(_COLUMNS):
            raise ValueError(
                f"fields ({', '.join(self._fields)}) must be source and target, in either order, for {BUILTIN_PAIRS}; "
                "name them so."
            )

    @property
    def is_builtin(self) -> bool:
        """Whether the corpus is `builtin:pairs` and nothing else."""
        return self._is_builtin

    def pairs(self, split: Split) -> Iterator[Pair]:
        """Streams the pairs of one part, the same ones in the same order each time; repeated pairs are repeated.

        Raises:
            ValueError: the split is unknown, a file is malformed, or the part has no pair.
            OSError: a file or the Hub cannot be read.
        """
        check_split(split)
        return self._divide(split)

    def _divide(self, split: Split) -> Iterator[Pair]:
        skipped = self._new_pass()
        num_pairs = 0
        for pair in itertools.chain(self._stories(split), self._found_pairs(split, skipped)):
            num_pairs += 1
            yield pair
        if not num_pairs:
            raise ValueError(
                f"pairs of the {split} part (0) must be at least 1; give more pairs or another validation_share than "
                f"{self._validation_share}."
            )

    def _stories(self, split: Split) -> Iterator[Pair]:
        if self._world is None:
            return
        for story in self._world.pairs(self._num_stories(split), split=split):
            yield _pair_of(dict(zip(_COLUMNS, story, strict=True)), self._fields)

    def _found_pairs(self, split: Split, skipped: "Counter[str]") -> Iterator[Pair]:
        """The pairs of one part from every source but `builtin:pairs`, counting those with an empty side."""
        replacements, is_replaced = Replacements(), self._encoding_errors == "replace"
        for part in self._parts:
            is_empty = True
            for pair in self._read(part):
                if not pair.source or not pair.target:
                    skipped["pairs with an empty side"] += 1
                    continue
                is_empty = False
                if max(len(pair.source), len(pair.target)) > LONGEST_PARAGRAPH:
                    skipped[_LONG_SIDE] += 1
                    continue
                if is_replaced and replacements.are_in((pair.source, pair.target), name_of(part)):
                    self._changed[REPLACED] += 1
                if falls_under(pair.source.encode(), self._validation_share) == (split == "validation"):
                    yield pair
            if isinstance(part, SourceFile) and is_empty:
                if part.named:
                    raise ValueError(f"file ({part.path}) must have a pair; remove it from the sources or fill it.")
                skipped["empty files"] += 1

    def _read(self, part: Part) -> Iterator[Pair]:
        if isinstance(part, SourceFile):
            yield from read_pairs(part.path, self._fields, encoding_errors=self._encoding_errors)
        elif isinstance(part, HubDataset):
            for place, row in part.rows():
                yield _record_pair(row, place, self._fields, self._encoding_errors)

    def _reading(self) -> str:
        return f"pairs {_READING_VERSION} {self._fields} {self._encoding_errors} {self._validation_share!r}"

    def _builtin_identity(self, name: str) -> str:
        assert self._world is not None  # made with the sources
        opening = "\n".join(map("\t".join, self._world.pairs(SAMPLED_STORIES, split="train")))
        return f"{name} {self._seed} {self._world_documents} {opening}"


def read_pairs(path: Path, fields: tuple[str, str], *, encoding_errors: str = "strict") -> Iterator[Pair]:
    """Reads the pairs of one file, in its order; a side without text, or with null, is empty.

    Args:
        path: A file whose suffix is one of `PAIR_SUFFIXES`.
        fields: The names of the source and of the target, see `PairCorpus`.
        encoding_errors: "strict", or "replace" to put U+FFFD in the place of what is not UTF-8.

    Raises:
        ValueError: the suffix is unknown, a byte is not UTF-8, or a line or record is malformed; the message names
            the place.
        OSError: the file cannot be read.
    """
    suffix = suffix_of(path, PAIR_SUFFIXES)
    if suffix is None:
        raise ValueError(f"file ({path}) must end in one of {', '.join(PAIR_SUFFIXES)}; rename or convert it.")
    if suffix.startswith(".tsv"):
        return _tsv_pairs(path, fields, encoding_errors)
    records: Iterator[tuple[int, object]]
    if suffix == ".parquet":
        records = parquet_records(
            path, lambda schema, place: _pair_columns(schema, place, fields), encoding_errors=encoding_errors
        )
    else:
        records = json_records(path, encoding_errors=encoding_errors)
    return (_record_pair(record, f"{path}:{number}", fields, encoding_errors) for number, record in records)


def _checked_fields(fields: tuple[str, str]) -> tuple[str, str]:
    if isinstance(fields, str) or len(fields) != 2 or len(set(fields)) != 2 or not all(fields):
        shown = fields if isinstance(fields, str) else ", ".join(fields)
        raise ValueError(f"fields ({shown}) must be two different names; name the source's and the target's.")
    return fields[0], fields[1]


def _pair_of(texts: Mapping[str, str], fields: tuple[str, str]) -> Pair:
    """The pair of cleaned texts; all white space is one space, so that a text is a line."""
    source, target = (" ".join(texts[field].split()) for field in fields)
    return Pair(source, target)


def _tsv_pairs(path: Path, fields: tuple[str, str], encoding_errors: str) -> Iterator[Pair]:
    columns: tuple[str, ...] | None = None
    # A carriage return alone also ends a line, so that what the file takes for one line may be several.
    whole = whole_lines(decoded_pieces(path, encoding_errors), path)
    lines = (clean(line).removesuffix("\n").split("\n") for _, line in whole)
    for number, line in enumerate(itertools.chain.from_iterable(lines), start=1):
        if not line.strip(" "):
            continue
        values = line.split("\t")
        if columns is None:
            columns, is_header = _columns(values, path, fields)
            if is_header:
                continue
        fewest = 1 + max(map(columns.index, fields))
        if len(values) < fewest:
            raise ValueError(
                f"{path}:{number}: columns ({len(values)}) must be at least {fewest}; put a tab between two texts."
            )
        yield _pair_of(dict(zip(columns, values, strict=False)), fields)


def _columns(first_line: list[str], path: Path, fields: tuple[str, str]) -> tuple[tuple[str, ...], bool]:
    """The names of a TSV file's columns, and whether its first line has them."""
    header = tuple(value.strip() for value in first_line)
    if set(fields) <= set(header):
        for field in fields:
            if header.count(field) > 1:
                raise ValueError(
                    f"{path}:1: columns called {field} ({header.count(field)}) must be 1; rename the others."
                )
        return header, True
    if set(fields) != set(_COLUMNS):
        raise ValueError(
            f"{path}:1: the first line must have the names {' and '.join(fields)} in it; add them, or call the columns "
            "of a file without a header source and target."
        )
    return _COLUMNS, False


def _pair_columns(schema: Any, place: str, fields: tuple[str, str]) -> dict[str, tuple[str, ...]]:
    """Where the two texts are in a Parquet file, at its top or inside `translation`."""
    if set(fields) <= set(schema.names):
        return {field: (field,) for field in fields}
    if _NESTED_KEY in schema.names:
        kind = schema.field(_NESTED_KEY).type
        inner = [kind.field(index).name for index in range(kind.num_fields)]
        if set(fields) <= set(inner):
            return {field: (_NESTED_KEY, field) for field in fields}
    raise _missing_keys(schema.names, place, fields)


def _record_pair(record: object, place: str, fields: tuple[str, str], encoding_errors: str) -> Pair:
    if not isinstance(record, Mapping):
        names = " and ".join(fields)
        raise ValueError(f"{place}: record ({type(record).__name__}) must be an object; give it the keys {names}.")
    texts: Mapping[str, object] = record
    if not all(field in record for field in fields) and isinstance(record.get(_NESTED_KEY), Mapping):
        texts = record[_NESTED_KEY]
    if not all(field in texts for field in fields):
        raise _missing_keys(texts, place, fields)
    cleaned: dict[str, str] = {}
    for field in fields:
        value = "" if texts[field] is None else texts[field]
        if not isinstance(value, str):
            raise ValueError(f"{place}: {field} ({type(value).__name__}) must be a string; convert it.")
        cleaned[field] = clean_value(value, f"{place}: {field}", encoding_errors=encoding_errors)
    return _pair_of(cleaned, fields)


def _missing_keys(keys: Mapping[str, object] | list[str], place: str, fields: tuple[str, str]) -> ValueError:
    names = " and ".join(fields)
    return ValueError(f"{place}: keys ({shown_keys(keys)}) must have {names}; rename them, or set the fields.")
