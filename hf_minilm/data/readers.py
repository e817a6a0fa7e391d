"""Readers of the files and Hub data sets that a corpus is made of: each yields its documents, one at a time.

What is held in memory is one document (one paragraph more for text), except for a `.json` file with one array, which
is read whole.
"""

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from .document import Document

SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_BREAK = re.compile(r"\r\n?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_PARQUET_BATCH = 256  # rows
_HUB_ADDRESS = re.compile(r"(?P<name>[^\s:@]+)(?::(?P<configuration>[^\s:@]+))?(?:@(?P<split>[^\s:@]+))?")
_GO_ON = "repair the text, or go on with --set data.encoding_errors=replace"


def suffix_of(path: Path, suffixes: Sequence[str] = SUFFIXES) -> str | None:
    """The suffix by which a file is read, one of `suffixes`, or None where no reader knows it."""
    name = path.name.lower()
    return next((suffix for suffix in suffixes if name.endswith(suffix)), None)


def read_file(path: Path, *, encoding_errors: str = "strict") -> Iterator[Document]:
    """Reads the documents of one file.

    A `.txt` file is split at two or more blank lines into documents and at one into paragraphs. The others have a
    document in each record, under the key `text` (blank lines split its paragraphs) or `paragraphs` (a list of
    strings). The lines of a paragraph are joined by a space, and control characters become spaces.

    Args:
        path: A file whose suffix is one of `SUFFIXES`.
        encoding_errors: "strict", or "replace" to put U+FFFD in the place of what is not UTF-8.

    Yields:
        Documents in the file's order. A record without text gives a document without paragraphs.

    Raises:
        ValueError: the suffix is unknown, a byte is not UTF-8, or a record is malformed; the message names the place.
        OSError: the file cannot be read.
    """
    suffix = suffix_of(path)
    if suffix is None:
        raise ValueError(f"file ({path}) must end in one of {', '.join(SUFFIXES)}; rename or convert it.")
    if suffix.startswith(".txt"):
        yield from _text_documents(path, encoding_errors)
        return
    records: Iterator[tuple[int, object]]
    if suffix == ".parquet":
        records = parquet_records(path, _text_column, encoding_errors=encoding_errors)
    else:
        records = json_records(path, encoding_errors=encoding_errors)
    for number, record in records:
        paragraphs = record_paragraphs(record, f"{path}:{number}", encoding_errors=encoding_errors)
        yield Document(paragraphs, f"{path.name}:{number}")


def record_paragraphs(record: object, place: str, *, encoding_errors: str = "strict") -> tuple[str, ...]:
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
    groups = (_group_lines(text.split("\n")) for text in texts)
    return tuple(itertools.chain.from_iterable(itertools.chain.from_iterable(groups)))


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

    def documents(self, *, encoding_errors: str = "strict") -> Iterator[Document]:
        """Streams the documents.

        Raises:
            OSError: the Hub cannot be reached or does not have the data set, or a folder here has its name.
            ValueError: a row has neither `text` nor `paragraphs`.
        """
        for place, row in self.rows():
            yield Document(record_paragraphs(row, place, encoding_errors=encoding_errors), place)

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
        return OSError(f"hub source ({self.address}) must be readable; check name and connection ({_one_line(error)}).")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _text_key(keys: Iterable[str], place: str) -> str:
    names = list(keys)
    key = next((key for key in ("text", "paragraphs") if key in names), None)
    if key is None:
        raise ValueError(f"{place}: keys ({shown_keys(names)}) must have text or paragraphs; rename the key.")
    return key


def shown_keys(keys: Iterable[str]) -> str:
    """The names of keys or columns, for an error message of one line."""
    return ", ".join(" ".join(key.split()) for key in keys) or "none"


def _text_column(schema: Any, place: str) -> dict[str, tuple[str, ...]]:
    key = _text_key(schema.names, place)
    return {key: (key,)}


def _group_lines(lines: Iterable[str]) -> Iterator[list[str]]:
    """Groups lines into documents, each a list of paragraphs that are not empty."""
    paragraphs: list[str] = []
    paragraph: list[str] = []
    blank_lines = 0
    for line in map(str.strip, lines):
        if line:
            if blank_lines >= 2 and paragraphs:
                yield paragraphs
                paragraphs = []
            blank_lines = 0
            paragraph.append(line)
            continue
        blank_lines += 1
        if paragraph:
            paragraphs.append(" ".join(paragraph))
            paragraph = []
    if paragraph:
        paragraphs.append(" ".join(paragraph))
    if paragraphs:
        yield paragraphs


def _text_documents(path: Path, encoding_errors: str) -> Iterator[Document]:
    # A carriage return alone also ends a line, so that what the file takes for one line may be several.
    lines = (clean(line).removesuffix("\n").split("\n") for line in decoded_lines(path, encoding_errors))
    for number, paragraphs in enumerate(_group_lines(itertools.chain.from_iterable(lines)), start=1):
        yield Document(tuple(paragraphs), f"{path.name}:{number}")


def decoded_lines(path: Path, encoding_errors: str) -> Iterator[str]:
    """The decoded lines of a file that may be compressed, with their line breaks and without a byte order mark.

    Raises:
        ValueError: a byte is not UTF-8, or the file is no whole gzip file.
        OSError: the file cannot be read.
    """
    # No byte of a UTF-8 character is a line feed, so none is cut.
    offset = 0
    for line in _raw_lines(path):
        skipped = len(_BYTE_ORDER_MARK) if offset == 0 and line.startswith(_BYTE_ORDER_MARK) else 0
        try:
            yield line[skipped:].decode("utf-8", encoding_errors)
        except UnicodeDecodeError as error:
            position = offset + skipped + error.start
            value = error.object[error.start]
            raise ValueError(f"{path}: byte {position} (0x{value:02x}) must be UTF-8; {_GO_ON}.") from error
        offset += len(line)


def _raw_lines(path: Path) -> Iterator[bytes]:
    if path.suffix.lower() != ".gz":
        with path.open("rb") as stream:
            yield from stream
        return
    try:
        with gzip.open(path, "rb") as stream:
            yield from cast(BinaryIO, stream)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"file ({path}) must be a whole gzip file; compress it again ({_one_line(error)}).") from error


def json_records(path: Path, *, encoding_errors: str) -> Iterator[tuple[int, object]]:
    """Records of a JSON or JSON lines file with the number of their line, or of their place in the array, from 1.

    Raises:
        ValueError: a record is no JSON, or a byte is not UTF-8; the message names the place.
        OSError: the file cannot be read.
    """
    may_be_array = not (suffix_of(path) or "").startswith(".jsonl")
    lines = decoded_lines(path, encoding_errors)
    for number, line in enumerate(lines, start=1):
        if may_be_array and line.lstrip().startswith("["):
            records = _parse(line + "".join(lines), path, number)
            yield from enumerate(cast(list[object], records), start=1)
            return
        if line.strip():
            may_be_array = False
            yield number, _parse(line.rstrip(), path, number)


def _parse(text: str, path: Path, first_line: int) -> object:
    try:
        return json.loads(text, strict=False)  # raw control characters become spaces later
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise ValueError(f"{path}:{line}: column {error.colno} must be JSON; correct it ({error.msg}).") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}:{first_line}: record must be plain JSON; correct it ({_one_line(error)}).") from error


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
            for batch in file.iter_batches(
                batch_size=_PARQUET_BATCH, columns=[".".join(way) for way in columns.values()]
            ):
                values = [_byte_values(batch, way) for way in columns.values()]
                for texts in zip(*values, strict=True):
                    number += 1
                    decoded = [_decoded(text, f"{path}:{number}", encoding_errors) for text in texts]
                    yield number, dict(zip(columns, decoded, strict=True))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"file ({path}) must be Parquet with text; write it again ({_one_line(error)}).") from error


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
    try:
        return value.decode("utf-8", encoding_errors)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: byte {error.start} of the text must be UTF-8; {_GO_ON}.") from error
