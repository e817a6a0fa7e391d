"""The tokenised corpus: a memory-mapped Arrow file, written once for a corpus and a tokenizer."""

import errno
import hashlib
import itertools
import json
import os
import shutil
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from .document import Document, split_sentences
from .tokenizer import text_encoder, tokenizer_fingerprint

WORD_START = 1
SENTENCE_START = 2

_FORMAT_VERSION = 1  # part of each store's key: raise it whenever what is written changes
_PARAGRAPHS_PER_BATCH = 1000
_CHARACTERS_PER_BATCH = 500_000  # of which each takes about 100 bytes as a token
# Paragraphs that a tokenizer may see otherwise when it sees them one at a time.
_PROBE = ("Ana ve el mar.", "el mar", "A 1", "日本")
_WHOLE_DOCUMENTS = "whole documents"
_TOKENS_PER_CHUNK = 1 << 20
_DATA_FILE = "tokens.arrow"
_SUMMARY_FILE = "summary.json"
_SCHEMA = pa.schema(
    {"input_ids": pa.list_(pa.int32()), "flags": pa.list_(pa.uint8()), "num_bytes": pa.int64()},
)


class TokenStore:
    """A tokenised corpus on disk, opened memory-mapped; a document without tokens is in it only where that was asked.

    No special tokens are stored. The data file is an Arrow stream with one row a document, which
    `datasets.Dataset.from_file` reads too.

    Args:
        folder: A folder that `build_store` wrote.

    Attributes:
        folder: Where the store lies.
        fingerprint: Hexadecimal SHA-256 of all that shaped the store: its key, the tokenizer and the format.
        reused: Whether `build_store` found the store instead of writing it.
        num_documents: How many documents there are.
        num_tokens: How many tokens they have together.
        lengths: Tokens of each document, int64 [num_documents].
        num_bytes: UTF-8 bytes of each document's text, int64 [num_documents].

    Raises:
        OSError: If the folder is incomplete or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reused = True
        try:
            summary = json.loads((folder / _SUMMARY_FILE).read_text(encoding="utf-8"))
            if (folder / _DATA_FILE).stat().st_size != summary["file_bytes"]:
                raise ValueError("wrong length")
            with pa.memory_map(str(folder / _DATA_FILE)) as source, pa.ipc.open_stream(source) as reader:
                chunks = [batch for batch in reader if batch.num_rows]
            self._read_chunks(chunks)
            self.fingerprint: str = summary["fingerprint"]
            if (self.num_documents, self.num_tokens) != (summary["num_documents"], summary["num_tokens"]):
                raise ValueError("wrong counts")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OSError(f"token store ({folder}) must be complete and undamaged; delete it and run again.") from error

    def _read_chunks(self, chunks: list[pa.RecordBatch]) -> None:
        offsets = [chunk.column("input_ids").offsets.to_numpy() for chunk in chunks]
        self._tokens = [chunk.column("input_ids").values.to_numpy() for chunk in chunks]
        self._flags = [chunk.column("flags").values.to_numpy() for chunk in chunks]
        self._first_documents = np.cumsum([0] + [chunk.num_rows for chunk in chunks])[:-1].tolist()
        self._starts = np.concatenate([part[:-1] for part in offsets]).astype(np.int64)
        self.lengths: NDArray[np.int64] = np.concatenate([np.diff(part) for part in offsets]).astype(np.int64)
        self.num_bytes: NDArray[np.int64] = np.concatenate([chunk.column("num_bytes").to_numpy() for chunk in chunks])
        self.num_documents = len(self.lengths)
        self.num_tokens = int(self.lengths.sum())

    def count(self, token: int | None) -> int:
        """Return how often a token occurs; None never does."""
        return 0 if token is None else sum(int(np.count_nonzero(chunk == token)) for chunk in self._tokens)

    def tokens(self, document: int) -> NDArray[np.int32]:
        """Return a document's token ids, a read-only view of the file, [length]."""
        return self._slice(self._tokens, document)

    def flags(self, document: int) -> NDArray[np.uint8]:
        """Return a document's flags, [length]: `WORD_START` and `SENTENCE_START` where a word or sentence begins."""
        return self._slice(self._flags, document)

    def _slice(self, chunks: list[NDArray[Any]], document: int) -> NDArray[Any]:
        if not 0 <= document < self.num_documents:
            raise IndexError(
                f"document ({document}) must be from 0 to {self.num_documents - 1}; see TokenStore.num_documents."
            )
        start = int(self._starts[document])
        chunk = chunks[bisect_right(self._first_documents, document) - 1]
        return chunk[start : start + int(self.lengths[document])]


def cache_root() -> Path:
    """Return the folder for what can be made again: $HF_MINILM_CACHE, or `hf_minilm` in $HF_HOME or in ~/.cache."""
    if own := os.environ.get("HF_MINILM_CACHE"):
        return Path(own).expanduser()
    if hub := os.environ.get("HF_HOME"):
        return Path(hub).expanduser() / "hf_minilm"
    return Path.home() / ".cache" / "hf_minilm"


def build_store(
    documents: Callable[[], Iterator[Document]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    cache_folder: Path | None,
    key: str,
    keep_empty: bool = False,
    progress: bool = True,
) -> TokenStore:
    """Opens the store of a corpus, tokenising the corpus first if there is none yet.

    A store appears under its final name only when it is whole. When several processes build the same one, the first
    to finish wins and all open that one.

    Text is encoded a paragraph at a time, where that gives the tokens of the whole. It does not if a tokenizer marks
    the beginning of whatever it is given, as Llama's and T5's do: then a document is encoded as one. Of a document of
    more than 500,000 characters, stretches of whole paragraphs are, of up to so many: memory stays bounded, and each
    stretch has one mark too many.

    Args:
        documents: Called once to begin reading the corpus, and not at all if the store exists.
        tokenizer: A tokenizer with a `tokenizers` backend.
        cache_folder: Where stores are kept, under `stores`; None for `cache_root()`.
        key: Text that changes whenever the documents do.
        keep_empty: Whether a document without tokens has its place in the store, with a length of 0, so that the
            stores of two texts of each pair stay aligned.
        progress: Whether to show a progress bar on standard error.

    Raises:
        ValueError: If no document has a token.
        OSError: If the disk is full or an existing store is damaged.
    """
    encoder = text_encoder(tokenizer)
    takes_whole = _depends_on_division(encoder)
    # A store without these has the name it always had.
    options = [*(["keep_empty"] if keep_empty else []), *([_WHOLE_DOCUMENTS] if takes_whole else [])]
    identity = json.dumps([key, tokenizer_fingerprint(tokenizer), _FORMAT_VERSION, *options])
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    folder = (cache_root() if cache_folder is None else cache_folder) / "stores" / fingerprint[:32]
    if folder.exists():
        return TokenStore(folder)
    unfinished = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        unfinished.mkdir(parents=True)
        longest = _CHARACTERS_PER_BATCH if takes_whole else 0
        tokenised = _tokenise(documents(), encoder, longest=longest, keep_empty=keep_empty)
        _write_store(unfinished, tokenised, fingerprint=fingerprint, progress=progress)
        lost_race = not _rename(unfinished, folder)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        advice = "the disk of the token store must have free space; free some or set HF_MINILM_CACHE"
        raise OSError(errno.ENOSPC, advice, str(folder)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    store = TokenStore(folder)
    store.reused = lost_race
    return store


def _rename(unfinished: Path, folder: Path) -> bool:
    """Give a finished store its name; False if another process was faster."""
    try:
        unfinished.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _write_store(
    folder: Path, tokenised_documents: "Iterator[_Tokenised]", *, fingerprint: str, progress: bool
) -> None:
    num_documents = num_tokens = 0
    chunk = _Chunk()
    data_file = folder / _DATA_FILE
    with (
        data_file.open("wb") as sink,
        pa.ipc.new_stream(sink, _SCHEMA) as writer,
        tqdm(desc="tokenising", unit=" documents", disable=not progress, mininterval=0.5) as bar,
    ):
        for tokenised in tokenised_documents:
            num_documents += 1
            num_tokens += len(tokenised.input_ids)
            chunk.documents.append(tokenised)
            chunk.num_tokens += len(tokenised.input_ids)
            if chunk.num_tokens >= _TOKENS_PER_CHUNK:
                writer.write_batch(chunk.record_batch())
                chunk = _Chunk()
            bar.set_postfix(tokens=f"{num_tokens:,}", refresh=False)
            bar.update()
        if not num_tokens:
            raise ValueError("documents with tokens (0) must be at least 1; give a corpus that has text.")
        if chunk.documents:
            writer.write_batch(chunk.record_batch())
    summary = {
        "fingerprint": fingerprint,
        "num_documents": num_documents,
        "num_tokens": num_tokens,
        "file_bytes": data_file.stat().st_size,
    }
    (folder / _SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


@dataclass(slots=True)
class _Tokenised:
    """A document's tokens."""

    input_ids: NDArray[np.int32]
    flags: NDArray[np.uint8]
    num_bytes: int


@dataclass(slots=True)
class _Chunk:
    """The documents that are written together; none is ever divided between two chunks."""

    documents: list[_Tokenised] = field(default_factory=list)
    num_tokens: int = 0

    def record_batch(self) -> pa.RecordBatch:
        lengths = [len(document.input_ids) for document in self.documents]
        offsets = pa.array(np.cumsum([0, *lengths]).astype(np.int32))
        columns = [
            pa.ListArray.from_arrays(offsets, pa.array(np.concatenate([each.input_ids for each in self.documents]))),
            pa.ListArray.from_arrays(offsets, pa.array(np.concatenate([each.flags for each in self.documents]))),
            pa.array([each.num_bytes for each in self.documents], pa.int64()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _depends_on_division(encoder: Tokenizer) -> bool:
    """Tell whether a tokenizer makes other tokens of paragraphs one by one than of all together."""
    last = len(_PROBE) - 1
    parts = [paragraph + ("" if place == last else "\n") for place, paragraph in enumerate(_PROBE)]
    encodings = encoder.encode_batch(["".join(parts), *parts], add_special_tokens=False)
    together, *apart = (encoding.ids for encoding in encodings)
    return together != list(itertools.chain.from_iterable(apart))


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Paragraphs of a document that are encoded together, one or several.

    Attributes:
        paragraphs: The paragraphs.
        end: What follows them in the document.
        closed: The document, if these are its last paragraphs.
    """

    paragraphs: tuple[str, ...]
    end: str
    closed: Document | None

    @property
    def text(self) -> str:
        return "\n".join(self.paragraphs) + self.end


def _tokenise(
    documents: Iterator[Document], encoder: Tokenizer, *, longest: int, keep_empty: bool
) -> Iterator[_Tokenised]:
    """Iterate over the tokenised documents that have tokens, or over all."""
    ids: list[NDArray[np.int32]] = []
    flags: list[NDArray[np.uint8]] = []
    for batch in _batches(stretch for document in documents for stretch in _stretches(document, longest)):
        encodings = encoder.encode_batch([stretch.text for stretch in batch], add_special_tokens=False)
        for stretch, encoding in zip(batch, encodings, strict=True):
            ids.append(np.array(encoding.ids, np.int32))
            flags.append(_flags(stretch, encoding))
            if stretch.closed is None:
                continue
            tokenised = _Tokenised(np.concatenate(ids), np.concatenate(flags), len(stretch.closed.text.encode()))
            ids, flags = [], []
            tokenised.flags[:1] = WORD_START | SENTENCE_START
            if len(tokenised.input_ids) or keep_empty:
                yield tokenised


def _stretches(document: Document, longest: int) -> Iterator[_Stretch]:
    """Divide a document into stretches of at most so many characters, each of at least one paragraph."""
    begin = characters = 0
    paragraphs = document.paragraphs or ("",)  # a document without any has its place too
    for place, paragraph in enumerate(paragraphs):
        if place > begin and characters + len(paragraph) > longest:
            yield _Stretch(paragraphs[begin:place], "\n", None)
            begin, characters = place, 0
        characters += len(paragraph)
    yield _Stretch(paragraphs[begin:], "", document)


def _batches(stretches: Iterator[_Stretch]) -> Iterator[list[_Stretch]]:
    """Group stretches of bounded number and length."""
    batch: list[_Stretch] = []
    characters = 0
    for stretch in stretches:
        batch.append(stretch)
        characters += sum(map(len, stretch.paragraphs))
        if len(batch) >= _PARAGRAPHS_PER_BATCH or characters >= _CHARACTERS_PER_BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _flags(stretch: _Stretch, encoding: Encoding) -> NDArray[np.uint8]:
    flags = np.zeros(len(encoding.ids), np.uint8)
    if not len(flags):
        return flags
    words = np.array(encoding.word_ids, np.int64)
    flags[0] = WORD_START
    flags[1:][words[1:] != words[:-1]] = WORD_START
    # The first token that reaches into the sentence: a byte-level token also covers the space before its word, and
    # the bytes of one character may be several tokens, each of which spans all of it.
    ends = np.array([end for _, end in encoding.offsets], np.int64)
    starts = np.searchsorted(ends, list(_sentence_starts(stretch)), side="right")
    starts[:1] = 0  # white space before the first sentence belongs to it
    flags[starts[starts < len(flags)]] = WORD_START | SENTENCE_START
    return flags


def _sentence_starts(stretch: _Stretch) -> Iterator[int]:
    """Iterate over the places in a stretch's text at which sentences begin."""
    begin = 0
    for paragraph in stretch.paragraphs:
        yield from (begin + start for start, _ in split_sentences(paragraph))
        begin += len(paragraph) + 1
