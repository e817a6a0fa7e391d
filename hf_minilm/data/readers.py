"""Readers of the files and Hub data sets that a corpus is made of: each yields its documents, one at a time.

What is held in memory is one document (one paragraph more for text), and `limits` says how long one may be.
"""

import gzip
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..one_line import one_line
from .document import Document
from .limits import (
    CONVERSION,
    LONG_DOCUMENTS,
    LONG_PARAGRAPHS,
    LONGEST_DOCUMENT,
    LONGEST_PARAGRAPH,
    LONGEST_PIECE,
    LONGEST_RECORD,
    cut_document,
    cut_paragraph,
    is_bomb,
    rows_at_once,
)

SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MARKS_OF_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_LINE_BREAK = re.compile(r"\r\n?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_WHITE_SPACE = re.compile(r"\s*")
_PARQUET_BATCH = 256  # rows
_SHOWN_KEYS = 8
_SHOWN_CHARACTERS = 40
_HUB_ADDRESS = re.compile(r"(?P<name>[^\s:@]+)(?::(?P<configuration>[^\s:@]+))?(?:@(?P<split>[^\s:@]+))?")
_GO_ON = "repair the text, or go on with --set data.encoding_errors=replace"
_CONVERT = (
    f"convert the text, {CONVERSION}, or where few bytes are damaged go on with --set data.encoding_errors=replace"
)


def suffix_of(path: Path, suffixes: Sequence[str] = SUFFIXES) -> str | None:
    """The suffix by which a file is read, one of `suffixes`, or None where no reader knows it."""
    name = path.name.lower()
    return next((suffix for suffix in suffixes if name.endswith(suffix)), None)


def read_file(
    path: Path, *, encoding_errors: str = "strict", changed: "Counter[str] | None" = None
) -> Iterator[Document]:
    """Reads the documents of one file.

    A `.txt` file is split at two or more blank lines into documents and at one into paragraphs. The others have a
    document in each record, under the key `text` (blank lines split its paragraphs) or `paragraphs` (a list of
    strings). The lines of a paragraph are joined by a space, and control characters become spaces.

    Args:
        path: A file whose suffix is one of `SUFFIXES`.
        encoding_errors: "strict", or "replace" to put U+FFFD in the place of what is not UTF-8.
        changed: Counts what was cut, see `limits`.

    Yields:
        Documents in the file's order. A record without text gives a document without paragraphs.

    Raises:
        ValueError: the suffix is unknown, a byte is not UTF-8, or a record is malformed; the message names the place.
        OSError: the file cannot be read.
    """
    suffix = suffix_of(path)
    changed = Counter() if changed is None else changed
    if suffix is None:
        raise ValueError(f"file ({path}) must end in one of {', '.join(SUFFIXES)}; rename or convert it.")
    if suffix.startswith(".txt"):
        yield from _text_documents(path, encoding_errors, changed)
        return
    records: Iterator[tuple[int, object]]
    if suffix == ".parquet":
        records = parquet_records(path, _text_column, encoding_errors=encoding_errors)
    else:
        records = json_records(path, encoding_errors=encoding_errors)
    for number, record in records:
        paragraphs = record_paragraphs(record, f"{path}:{number}", encoding_errors=encoding_errors, changed=changed)
        for part, is_cut in cut_document(paragraphs, changed):
            yield Document(part, f"{path.name}:{number}", is_cut)


def record_paragraphs(
    record: object, place: str, *, encoding_errors: str = "strict", changed: "Counter[str] | None" = None
) -> tuple[str, ...]:
    """The cleaned paragraphs of a record with the key `text` or `paragraphs`; none where the value is null.

    Raises:
        ValueError: the record is no object, has neither key, or what it has there is not text. `place` is named.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"{place}: record ({type(record).__name__}) must be an object; give it the key text.")
    key = _text_key(record, place)
    value = record[key]
    texts = [value] if key == "text" else value
    if value is None:
        return ()
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        kind = "a string" if key == "text" else "a list of strings"
        raise ValueError(f"{place}: {key} ({type(value).__name__}) must be {kind}; convert it.")
    texts = [clean_value(text, f"{place}: {key}", encoding_errors=encoding_errors) for text in texts]
    changed = Counter() if changed is None else changed
    groups = (_group_lines(text.split("\n"), changed, longest=LONGEST_RECORD) for text in texts)
    return tuple(itertools.chain.from_iterable(paragraphs for paragraphs, _ in itertools.chain.from_iterable(groups)))


def clean_value(text: str, what: str, *, encoding_errors: str = "strict") -> str:
    """The text of a record as `clean` leaves it, without a byte order mark.

    Raises:
        ValueError: a lone surrogate, which JSON can spell and UTF-8 cannot; the message begins with `what`.
    """
    if _SURROGATE.search(text):
        if encoding_errors == "strict":
            raise ValueError(f"{what} must be Unicode without lone surrogates; {_GO_ON}.")
        text = _SURROGATE.sub("\ufffd", text)
    return clean(text.removeprefix("\ufeff"))


def clean(text: str) -> str:
    """Makes every line break a line feed, and every other control character but the tab a space."""
    return _CONTROL.sub(" ", _LINE_BREAK.sub("\n", text))


class HubDataset:
    """A text data set on the Hugging Face Hub, streamed at the revision that is current when it is first asked for.

    Args:
        address: `owner/name[:configuration][@split]`; the split is `train` where none is named.

    Raises:
        ValueError: the address does not have that form.
    """

    def __init__(self, address: str) -> None:
        match = _HUB_ADDRESS.fullmatch(address)
        if match is None:
            raise ValueError(f"hub source ({address}) must be hub:owner/name[:configuration][@split]; correct it.")
        self.address = address
        self._name, self._configuration, self._split = match.group("name", "configuration", "split")
        self._revision: str | None = None

    def fingerprint(self) -> str:
        """The address and the commit that its documents are read from.

        Raises:
            OSError: the Hub cannot be reached or does not have the data set, or a folder here has its name.
        """
        if Path(self._name).is_dir():  # datasets would read it in the Hub's place, under the name of the Hub's commit
            raise FileExistsError(
                f"hub source ({self.address}) must not have the name of a folder here; start in another folder."
            )
        if self._revision is None:
            from huggingface_hub import HfApi

            try:
                self._revision = HfApi().dataset_info(self._name).sha
            except Exception as error:  # the classes of connection errors depend on the version of the HTTP client
                raise self._failure(error) from error
        return f"{self.address} {self._revision}"

    def documents(
        self, *, encoding_errors: str = "strict", changed: "Counter[str] | None" = None
    ) -> Iterator[Document]:
        """Streams the documents, and counts what was cut.

        Raises:
            OSError: the Hub cannot be reached or does not have the data set, or a folder here has its name.
            ValueError: a row has neither `text` nor `paragraphs`.
        """
        for place, row in self.rows():
            changed = Counter() if changed is None else changed
            paragraphs = record_paragraphs(row, place, encoding_errors=encoding_errors, changed=changed)
            for part, is_cut in cut_document(paragraphs, changed):
                yield Document(part, place, is_cut)

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Streams the rows, each with the name of its place.

        Raises:
            OSError: the Hub cannot be reached or does not have the data set, or a folder here has its name.
        """
        self.fingerprint()
        from datasets import load_dataset

        try:
            split = self._split or "train"
            rows = load_dataset(self._name, self._configuration, split=split, revision=self._revision, streaming=True)
            for number, row in enumerate(rows):
                yield f"hub:{self.address}:{number}", row
        except Exception as error:  # as above, and the builders raise classes of their own
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> OSError:
        return OSError(f"hub source ({self.address}) must be readable; check name and connection ({one_line(error)}).")


def _text_key(keys: Iterable[str], place: str) -> str:
    names = list(keys)
    key = next((key for key in ("text", "paragraphs") if key in names), None)
    if key is None:
        raise ValueError(f"{place}: keys ({shown_keys(names)}) must have text or paragraphs; rename the key.")
    return key


def shown_keys(keys: Iterable[str]) -> str:
    """The names of keys or columns, for an error message of one line."""
    names = list(keys)
    shown = [" ".join(str(name)[:_SHOWN_CHARACTERS].split()) for name in names[:_SHOWN_KEYS]]
    more = len(names) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])]) or "none"


def _text_column(schema: Any, place: str) -> dict[str, tuple[str, ...]]:
    key = _text_key(schema.names, place)
    return {key: (key,)}


class _Growing:
    """A document whose lines are still coming."""

    def __init__(self, changed: "Counter[str]") -> None:
        self.paragraphs: list[str] = []
        self.characters = 0
        self._changed = changed
        self._lines: list[str] = []
        self._open_characters = 0  # in the lines of the paragraph that has not ended

    def add(self, line: str) -> None:
        """Adds a line to the last paragraph, and begins another where that is too long."""
        if self._lines and self._open_characters + len(line) >= LONGEST_PARAGRAPH:
            self._changed[LONG_PARAGRAPHS] += 1
            self.end_paragraph()
        self._lines.append(line)
        self._open_characters += len(line) + 1

    def end_paragraph(self) -> None:
        """Says that the next line begins a paragraph."""
        if self._lines:
            self.paragraphs.extend(filter(None, cut_paragraph(" ".join(self._lines), self._changed)))
            self.characters += self._open_characters
        self._lines, self._open_characters = [], 0

    def take(self) -> list[str]:
        """Gives the paragraphs that have ended, and begins another document."""
        taken, self.paragraphs, self.characters = self.paragraphs, [], 0
        return taken


def _group_lines(lines: Iterable[str], changed: "Counter[str]", *, longest: int) -> Iterator[tuple[list[str], bool]]:
    """Groups lines into documents of at most about `longest` characters, each a list of paragraphs that are not empty.

    What is too long is divided as it comes: it may be longer than the memory. With each document comes whether it is a
    piece of such a one.
    """
    document = _Growing(changed)
    blank_lines, is_cut = 0, False
    for line in map(str.strip, lines):
        if line:
            if blank_lines >= 2 and document.paragraphs:
                yield document.take(), is_cut
                is_cut = False
            elif document.characters >= longest:
                changed[LONG_DOCUMENTS] += 1
                is_cut = True
                yield document.take(), is_cut
            blank_lines = 0
            document.add(line)
            continue
        blank_lines += 1
        document.end_paragraph()
    document.end_paragraph()
    if document.paragraphs:
        yield document.take(), is_cut


def _text_documents(path: Path, encoding_errors: str, changed: "Counter[str]") -> Iterator[Document]:
    # A carriage return alone also ends a line, so that what the file takes for one line may be several.
    lines = (clean(line).removesuffix("\n").split("\n") for line in decoded_pieces(path, encoding_errors))
    grouped = _group_lines(itertools.chain.from_iterable(lines), changed, longest=LONGEST_DOCUMENT)
    for number, (paragraphs, is_cut) in enumerate(grouped, start=1):
        yield Document(tuple(paragraphs), f"{path.name}:{number}", is_cut)


def decoded_pieces(path: Path, encoding_errors: str) -> Iterator[str]:
    """The decoded lines of a file that may be compressed, with their line breaks and without a byte order mark.

    A line longer than `LONGEST_PIECE` comes in pieces that end at a space, or between two characters.

    Raises:
        ValueError: a byte is not UTF-8, or the file is no whole gzip file, or expands as no text does.
        OSError: the file cannot be read.
    """
    offset = 0
    for piece in _raw_pieces(path):
        if offset == 0 and piece.startswith(_MARKS_OF_UTF_16):
            raise ValueError(f"file ({path}) must be UTF-8, and begins as UTF-16 does; convert it.")
        skipped = len(_BYTE_ORDER_MARK) if offset == 0 and piece.startswith(_BYTE_ORDER_MARK) else 0
        try:
            yield piece[skipped:].decode("utf-8", encoding_errors)
        except UnicodeDecodeError as error:
            position = offset + skipped + error.start
            value = error.object[error.start]
            raise ValueError(f"{path}: byte {position} (0x{value:02x}) must be UTF-8; {_CONVERT}.") from error
        offset += len(piece)


def whole_lines(pieces: Iterable[str], path: Path, *, first: int = 1) -> Iterator[tuple[int, str]]:
    """The lines of which `decoded_pieces` gave pieces, with their numbers.

    Raises:
        ValueError: a line is longer than `LONGEST_RECORD`; the message names it.
    """
    number, line, length = first, list[str](), 0
    for piece in pieces:
        line.append(piece)
        length += len(piece)
        if length > LONGEST_RECORD:
            raise ValueError(
                f"{path}:{number}: line must have at most {LONGEST_RECORD:,} characters; divide it into several."
            )
        if piece.endswith("\n"):
            yield number, "".join(line)
            number, line, length = number + 1, [], 0
    if line:
        yield number, "".join(line)


def _raw_pieces(path: Path) -> Iterator[bytes]:
    if path.suffix.lower() != ".gz":
        with path.open("rb") as stream:
            yield from _pieces(stream)
        return
    expanded, compressed = 0, path.stat().st_size
    try:
        with gzip.open(path, "rb") as stream:
            for piece in _pieces(cast(BinaryIO, stream)):
                expanded += len(piece)
                if is_bomb(expanded, compressed):
                    raise ValueError(
                        f"file ({path}, {compressed:,} bytes) must expand as text does, and gives more than "
                        f"{expanded:,} bytes; expand it if they are meant."
                    )
                yield piece
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"file ({path}) must be a whole gzip file; compress it again ({one_line(error)}).") from error


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while piece := rest + stream.readline(LONGEST_PIECE - len(rest)):
        rest = b""
        if len(piece) == LONGEST_PIECE and not piece.endswith(b"\n"):
            end = _good_end(piece)
            piece, rest = piece[:end], piece[end:]
        yield piece


def _good_end(piece: bytes) -> int:
    """Where to end a piece of a line: after a space in its second half, or before its last character."""
    space = piece.rfind(b" ", len(piece) // 2)
    if space != -1:
        return space + 1
    # The first byte of a UTF-8 character is none of 10xxxxxx, and three more follow at most.
    return next((end for end in range(len(piece) - 1, len(piece) - 5, -1) if piece[end] & 0xC0 != 0x80), len(piece))


def json_records(path: Path, *, encoding_errors: str) -> Iterator[tuple[int, object]]:
    """Records of a JSON or JSON lines file with the number of their line, or of their place in the array, from 1.

    Raises:
        ValueError: a record is no JSON, or a byte is not UTF-8; the message names the place.
        OSError: the file cannot be read.
    """
    pieces = decoded_pieces(path, encoding_errors)
    first_line, opening = 1, ""
    for opening in pieces:
        if opening.strip():
            break
        first_line += opening.count("\n")
    read_again = itertools.chain([opening], pieces)
    may_be_array = not (suffix_of(path) or "").startswith(".jsonl")
    if may_be_array and opening.lstrip().startswith("["):
        yield from enumerate(_Array(read_again, path, first_line).records(), start=1)
        return
    for number, line in whole_lines(read_again, path, first=first_line):
        if line.strip():
            yield number, _parse(line.rstrip(), path, number)


class _Array:
    """A JSON array, of whose text only what has not been parsed is held.

    Args:
        pieces: The text.
        path: Its file, for errors.
        line: The number of its first line.
    """

    def __init__(self, pieces: Iterator[str], path: Path, line: int) -> None:
        self._pieces, self._path = pieces, path
        self._text, self._at = "", 0
        self._line, self._column = line, 0  # of the held text's first character; columns count from 0

    def records(self) -> Iterator[object]:
        """The array's values, one at a time.

        Raises:
            ValueError: it is no JSON; the message names the place.
        """
        self._next_character()
        self._at += 1  # the bracket
        is_first = True
        while (mark := self._next_character()) != "]":
            if not is_first:
                if mark != ",":
                    raise self._failure("Expecting ',' delimiter", self._at)
                self._at += 1
            yield self._value()
            is_first = False
        self._at += 1
        if self._next_character():
            raise self._failure("Extra data", self._at)

    def _value(self) -> object:
        self._next_character()
        while True:
            try:
                value, self._at = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > LONGEST_RECORD or not self._read_more():
                    raise self._failure(error.msg, error.pos) from error
            except (ValueError, RecursionError) as error:
                raise _no_plain_json(self._path, self._line, error) from error
            else:
                return value

    def _next_character(self) -> str:
        """Goes to the next character that is no white space and gives it; nothing at the end."""
        while True:
            space = _WHITE_SPACE.match(self._text, self._at)
            assert space is not None  # the pattern matches the empty string
            self._at = space.end()
            if self._at < len(self._text) or not self._read_more():
                return self._text[self._at : self._at + 1]

    def _read_more(self) -> bool:
        """Drops what has been parsed and holds twice as much of the rest; False at the end."""
        more, length = list[str](), 0
        while length <= len(self._text) - self._at and (piece := next(self._pieces, None)) is not None:
            more.append(piece)
            length += len(piece)
        if not more:
            return False
        self._line, self._column = self._place(self._at)
        self._text, self._at = "".join([self._text[self._at :], *more]), 0
        return True

    def _place(self, at: int) -> tuple[int, int]:
        line_start = self._text.rfind("\n", 0, at) + 1
        column = at - line_start + (0 if line_start else self._column)
        return self._line + self._text.count("\n", 0, at), column

    def _failure(self, reason: str, at: int) -> ValueError:
        line, column = self._place(at)
        return ValueError(f"{self._path}:{line}: column {column + 1} must be JSON; correct it ({reason}).")


_DECODER = json.JSONDecoder(strict=False)  # raw control characters become spaces later


def _parse(text: str, path: Path, first_line: int) -> object:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise ValueError(f"{path}:{line}: column {error.colno} must be JSON; correct it ({error.msg}).") from error
    except (ValueError, RecursionError) as error:
        raise _no_plain_json(path, first_line, error) from error


def _no_plain_json(path: Path, line: int, error: Exception) -> ValueError:
    return ValueError(f"{path}:{line}: record must be plain JSON; correct it ({one_line(error)}).")


def parquet_records(
    path: Path, find_columns: Callable[[Any, str], Mapping[str, tuple[str, ...]]], *, encoding_errors: str
) -> Iterator[tuple[int, dict[str, object]]]:
    """Records of some of a Parquet file's columns, of texts or lists of texts, with their number from 1.

    Args:
        path: The file.
        find_columns: Says under which key a record has which column, given the Arrow schema and the file's name: the
            name of the column, and the names that lead to it inside.
        encoding_errors: As for `read_file`.

    Raises:
        ValueError: a byte is not UTF-8, or the file is no Parquet with such columns; the message names the place.
    """
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            columns = find_columns(file.schema_arrow, str(path))
            batch_size = _parquet_batch_size(path, file.metadata)
            for batch in file.iter_batches(batch_size=batch_size, columns=[".".join(way) for way in columns.values()]):
                values = [_byte_values(batch, way) for way in columns.values()]
                for texts in zip(*values, strict=True):
                    number += 1
                    decoded = [_decoded(text, f"{path}:{number}", encoding_errors) for text in texts]
                    yield number, dict(zip(columns, decoded, strict=True))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"file ({path}) must be Parquet with text; write it again ({one_line(error)}).") from error


def _parquet_batch_size(path: Path, metadata: Any) -> int:
    expanded = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    compressed = path.stat().st_size
    if is_bomb(expanded, compressed):
        raise ValueError(
            f"file ({path}, {compressed:,} bytes) must expand as text does, and says that it gives {expanded:,} bytes; "
            "write it again if they are meant."
        )
    return rows_at_once(metadata.num_rows, expanded, _PARQUET_BATCH)


def _byte_values(batch: Any, way: tuple[str, ...]) -> list[Any]:
    """The values of a column as bytes: Arrow does not look whether its strings are UTF-8, nor says where they fail."""
    import pyarrow
    from pyarrow import compute

    column = batch.column(way[0])
    for name in way[1:]:
        column = compute.struct_field(column, name)
    is_list = pyarrow.types.is_list(column.type) or pyarrow.types.is_large_list(column.type)
    kind = pyarrow.large_binary()
    return cast(list[Any], column.cast(pyarrow.list_(kind) if is_list else kind).to_pylist())


def _decoded(value: bytes | list[bytes | None] | None, place: str, encoding_errors: str) -> object:
    if value is None:
        return None
    if isinstance(value, list):
        return [_decoded(item, place, encoding_errors) for item in value]
    if len(value) > LONGEST_RECORD:
        raise ValueError(
            f"{place}: text ({len(value):,} bytes) must have at most {LONGEST_RECORD:,}; divide it into several."
        )
    try:
        return value.decode("utf-8", encoding_errors)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: byte {error.start} of the text must be UTF-8; {_GO_ON}.") from error
