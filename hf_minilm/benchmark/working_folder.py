"""What all contestants read, made once: the corpus, the tokenizers, the token stores and the peers' examples.

It is kept in a folder that is named by what it was made from, and used again by later runs. A file or folder in it is
complete or it does not exist.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ..data.corpus import Corpus
from ..data.document import Document
from ..data.store import cache_root
from ..data.tokenizer import TokenizerKind, load_tokenizer, train_tokenizer
from ..data.whole_file import write_whole
from .settings import BenchSettings
from .work import EncodingWork, ObjectiveName, TrainingWork, Work

MOST_WORDS = 1_000_000
"""Words of the corpus that are read: enough for all steps, and prepared in about a minute."""
LONGEST_TEXT = 512
_FORMAT = 1


@dataclass(frozen=True)
class WorkingFolder:
    """The folder, and where things are in it."""

    path: Path

    @property
    def corpus(self) -> Path:
        """The documents that all contestants read, in JSON."""
        return self.path / "corpus.jsonl"

    @property
    def cache(self) -> Path:
        """Where our token stores are."""
        return self.path / "cache"

    def tokenizer(self, objective: ObjectiveName) -> Path:
        """The folder of the tokenizer for an objective."""
        return self.path / f"tokenizer-{tokenizer_kind(objective)}"

    def examples(self, work: TrainingWork) -> Path:
        """The folder of a peer's examples."""
        return self.path / f"peers-{tokenizer_kind(work.objective)}-{work.data}-{work.length}"

    def texts(self, number: int) -> Path:
        """The texts to encode, as a JSON list."""
        return self.path / f"texts-{number}.json"

    def documents(self) -> list[Document]:
        """Read the documents."""
        with self.corpus.open(encoding="utf-8") as lines:
            records = [json.loads(line)["paragraphs"] for line in lines]
        return [Document(tuple(record), f"corpus.jsonl:{number}") for number, record in enumerate(records, start=1)]


def tokenizer_kind(objective: ObjectiveName) -> TokenizerKind:
    """Name the kind of tokenizer that an objective has."""
    return "bytelevel_bpe" if objective == "causal" else "wordpiece"


def open_working_folder(settings: BenchSettings, root: Path | None) -> WorkingFolder:
    """Open the folder for a corpus and a vocabulary, and write the corpus into it.

    Args:
        settings: Corpus and vocabulary.
        root: The folder that it is in; None for one among the caches.

    Raises:
        ValueError: If the corpus cannot be read.
        OSError: If a file cannot be.
    """
    corpus = Corpus([settings.corpus])
    key = json.dumps([_FORMAT, corpus.fingerprint(), settings.vocabulary, MOST_WORDS])
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = WorkingFolder((cache_root() / "bench" if root is None else root) / name)
    if not folder.corpus.exists():
        _say(f"reading {settings.corpus}")
        folder.path.mkdir(parents=True, exist_ok=True)
        writing = folder.corpus.with_suffix(".writing")
        with writing.open("w", encoding="utf-8") as stream:
            for document in _first_documents(corpus):
                stream.write(json.dumps({"paragraphs": document.paragraphs}, ensure_ascii=False) + "\n")
        writing.replace(folder.corpus)
    return folder


def prepare(work: Work, folder: WorkingFolder, *, vocabulary: int) -> None:
    """Make what some work reads, where it is not there yet.

    Raises:
        ValueError: If the corpus or the settings cannot give it.
    """
    if isinstance(work, EncodingWork):
        _prepare_tokenizer(folder, "masked", vocabulary)
        _write_texts(folder, work.texts)
    elif isinstance(work, TrainingWork):
        _prepare_tokenizer(folder, work.objective, vocabulary)
        if work.maker == "ours":
            from .ours import prepare_ours

            prepare_ours(work, folder)
        else:
            _prepare_examples(work, folder)


def _prepare_tokenizer(folder: WorkingFolder, objective: ObjectiveName, vocabulary: int) -> None:
    target = folder.tokenizer(objective)
    if target.exists():
        return
    kind = tokenizer_kind(objective)
    _say(f"training a {kind} tokenizer")
    tokenizer = train_largest_tokenizer(folder.documents(), kind=kind, vocabulary=vocabulary)
    writing = target.with_name(f".{target.name}")
    tokenizer.save_pretrained(writing)
    writing.rename(target)


def train_largest_tokenizer(
    documents: list[Document], *, kind: TokenizerKind, vocabulary: int
) -> PreTrainedTokenizerBase:
    """Train a tokenizer of a size, or where the corpus has not so many tokens, of one that it has.

    The models have the whole vocabulary all the same, so that it costs them what it costs with a longer corpus.

    Raises:
        ValueError: If the vocabulary does not even hold the alphabet.
    """
    try:
        return train_tokenizer(documents, kind=kind, vocab_size=vocabulary, max_length=LONGEST_TEXT)
    except ValueError as error:
        tokenizer = train_tokenizer(documents, kind=kind, vocab_size="auto", max_length=LONGEST_TEXT)
        if len(tokenizer) > vocabulary:
            raise ValueError(str(error).replace("tokenizer.vocab_size", "--vocabulary")) from error
        _say(f"the corpus supports a {kind} tokenizer of {len(tokenizer):,} tokens; the models have {vocabulary:,}")
        return tokenizer


def _prepare_examples(work: TrainingWork, folder: WorkingFolder) -> None:
    target = folder.examples(work)
    if target.exists():
        return
    from datasets import disable_progress_bars

    from .peer_data import build_examples

    disable_progress_bars()
    _say(f"making the peers' examples: {work.data}, {work.length} tokens")
    tokenizer = load_tokenizer(folder.tokenizer(work.objective))
    examples = build_examples(work.data, folder.documents(), tokenizer, length=work.length, objective=work.objective)
    writing = target.with_name(f".{target.name}")
    examples.save_to_disk(writing)
    writing.rename(target)


def _write_texts(folder: WorkingFolder, number: int) -> None:
    """Choose paragraphs spread evenly over the corpus, in its order; all of them where there are no more."""
    target = folder.texts(number)
    if target.exists():
        return
    paragraphs = [paragraph for document in folder.documents() for paragraph in document.paragraphs]
    chosen = min(number, len(paragraphs))
    texts = [paragraphs[len(paragraphs) * index // chosen] for index in range(chosen)]
    write_whole(target, json.dumps(texts, ensure_ascii=False))


def _first_documents(corpus: Corpus) -> Iterator[Document]:
    """Stream documents until they have enough words; of the last one, as many paragraphs as are needed."""
    left = MOST_WORDS
    for document in corpus.documents("train"):
        kept = []
        for paragraph in document.paragraphs:
            if left <= 0:
                break
            kept.append(paragraph)
            left -= len(paragraph.split())
        if kept:
            yield Document(tuple(kept), document.source)
        if left <= 0:
            return


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
