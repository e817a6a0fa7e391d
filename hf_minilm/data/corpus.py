"""A corpus: documents from files, folders, Hub data sets and the built-in sources, in a training and a held-out part.

Which documents are held out depends on their text: of the opening, up to 64 documents, those whose hashes are least, as
many as the share asks for, at least one, of 16 texts two, but never the first; of the others each whose hash falls
under the share. So equal documents are in the same part, both parts have one as soon as there are two texts, and both
can be streamed. Of a text that is too long to be read at once, the share is taken from the end of each piece.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .document import Document
from .documentation import documentation_versions, installed_documentation
from .limits import LONG_WORDS, LONGEST_DOCUMENT, REPLACED, Replacements, has_long_word
from .readers import SUFFIXES, HubDataset, read_file
from .sources import SAMPLED_STORIES, Part, SourcedCorpus, SourceFile, Split, key_of
from .world import World, check_split

_WORLD = "builtin:world"
BUILTIN_SOURCES = (_WORLD, "builtin:docs")
_OPENING_DOCUMENTS = 64
_ENOUGH_FOR_TWO = 15
_NO_TEXT = "corpus (0 documents) must have text; name sources that are not empty."
# Part of every fingerprint: a change in how sources become documents needs another number.
_READING_VERSION = 3


class Corpus(SourcedCorpus):
    """The documents that a model is trained and evaluated on.

    Args:
        sources: Files, folders (read recursively, links to folders too), globs,
            `hub:owner/name[:configuration][@split]`, `builtin:world` and `builtin:docs`, in order, the stories of the
            world first. What two of them name is read once. Hidden files in folders are ignored.
        encoding_errors: "strict", or "replace" to put U+FFFD in the place of the few bytes that are not UTF-8; a text
            in another encoding is refused, see `limits.Replacements`.
        languages: Languages of `builtin:world`, "es", "en" or both.
        world_documents: Training documents of `builtin:world`. Held out are `validation_share` of that number, at least
            200, drawn independently.
        validation_share: Share of the documents held out, in (0, 1). Where there is a single document, and of each
            piece of one that is too long, it is the share of the paragraphs, at least one, taken from the end.
        seed: Seed of `builtin:world`.

    Raises:
        ValueError: a source has no known form or suffix, a folder has no file to read, or a setting is out of range.
        FileNotFoundError: a path does not exist, or a glob matches nothing.
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        encoding_errors: str = "strict",
        languages: Sequence[str] = ("es", "en"),
        world_documents: int = 20_000,
        validation_share: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(
            sources,
            builtins=BUILTIN_SOURCES,
            suffixes=SUFFIXES,
            encoding_errors=encoding_errors,
            world_documents=world_documents,
            validation_share=validation_share,
        )
        self._world = World(languages, seed=seed) if _WORLD in sources else None
        self._only_world = list(sources) == [_WORLD]

    @property
    def world(self) -> World | None:
        """The generator of the documents, where the corpus is `builtin:world` and nothing else."""
        return self._world if self._only_world else None

    def documents(self, split: Split) -> Iterator[Document]:
        """Streams the documents of one part, the same ones in the same order each time.

        Raises:
            ValueError: the split is unknown, a file is malformed, or the text cannot give two parts.
            OSError: a file or the Hub cannot be read.
        """
        check_split(split)
        return self._divide(split)

    def held_out_of(self, other: "Corpus") -> Iterator[Document]:
        """Streams those of the held-out documents that come from sources of another corpus too.

        Raises:
            ValueError: a file is malformed, or there is no such document.
            OSError: a file or the Hub cannot be read.
        """
        kept = self._keys & other._keys
        documents = self._divide("validation", kept)
        first = next(documents, None)
        if first is None:
            raise ValueError(
                f"held-out documents of {len(kept)} sources (0) must be at least 1; name more of the corpus."
            )
        yield from itertools.chain([first], documents)

    def undivided(self) -> Iterator[Document]:
        """Streams the documents of both parts in their order, but for the stories of `builtin:world`.

        Raises:
            ValueError: a file is malformed, or there is no text.
            OSError: a file or the Hub cannot be read.
        """
        skipped = self._new_pass()
        documents = self._found_documents(skipped)
        first = next(documents, None)
        if first is None:
            raise ValueError(_NO_TEXT)
        yield from (document for _, document in itertools.chain([first], documents))

    def _divide(self, split: Split, kept: frozenset[Path | str] | None = None) -> Iterator[Document]:
        """The documents of one part; only those of some sources, where they are named."""
        skipped = self._new_pass()
        if self._world is not None and (kept is None or _WORLD in kept):
            yield from self._stories(self._world, split)
        if kept == frozenset((_WORLD,)):
            return
        documents = self._found_documents(skipped)
        opening = _opening(documents)
        first_documents = [document for _, document in opening]
        sides = _Sides(first_documents, self._validation_share)
        is_alone = self._world is None and not sides.are_both
        if is_alone:
            _refuse_undivided(first_documents)
        for part, document in itertools.chain(opening, documents):
            if kept is not None and key_of(part) not in kept:
                continue
            own = self._part_of(document, split) if document.is_cut or is_alone else sides.of(document, split)
            if own is not None:
                yield own

    def _stories(self, world: World, split: Split) -> Iterator[Document]:
        return world.documents(self._num_stories(split), split=split)

    def _found_documents(self, skipped: Counter[str]) -> Iterator[tuple[Part, Document]]:
        """The documents with text of every source but `builtin:world`, with the source, counting the empty ones."""
        replacements = Replacements()
        for part in self._parts:
            has_text = False
            for document in self._read(part):
                if document.paragraphs:
                    has_text = True
                    self._note_changes(document, replacements)
                    yield part, document
                else:
                    skipped["empty documents"] += 1
            if isinstance(part, SourceFile) and not has_text:
                if part.named:
                    raise ValueError(f"file ({part.path}) must have text; remove it from the sources or fill it.")
                skipped["empty files"] += 1

    def _note_changes(self, document: Document, replacements: Replacements) -> None:
        if self._encoding_errors == "replace" and replacements.are_in(document.paragraphs, document.source):
            self._changed[REPLACED] += 1
        if any(map(has_long_word, document.paragraphs)):
            self._changed[LONG_WORDS] += 1

    def _read(self, part: Part) -> Iterator[Document]:
        settings: dict[str, Any] = {"encoding_errors": self._encoding_errors, "changed": self._changed}
        if isinstance(part, SourceFile):
            yield from read_file(part.path, **settings)
        elif isinstance(part, HubDataset):
            yield from part.documents(**settings)
        elif part == "builtin:docs":
            yield from installed_documentation()

    def _part_of(self, document: Document, split: Split) -> Document | None:
        """The paragraphs of a document that are of a split; a single one is for training."""
        number = len(document.paragraphs)
        end = number - min(max(1, round(number * self._validation_share)), number - 1)
        kept = document.paragraphs[:end] if split == "train" else document.paragraphs[end:]
        return replace(document, paragraphs=kept, source=f"{document.source}:{split}") if kept else None

    def _reading(self) -> str:
        return f"{_READING_VERSION} {self._encoding_errors} {self._validation_share!r}"

    def _builtin_identity(self, name: str) -> str:
        if name == "builtin:docs":
            return f"{name} {documentation_versions()}"
        assert self._world is not None  # made with the sources
        opening = "\n".join(story.text for story in self._world.documents(SAMPLED_STORIES))
        return f"{name} {self._world.languages} {self._world.seed} {self._world_documents} {opening}"


def falls_under(content: bytes, share: float) -> bool:
    """Whether the hash of some bytes falls under a share of all hashes."""
    return int.from_bytes(_short_hash(content), "little") < share * 2**64


def _short_hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def _opening(documents: Iterator[tuple[Part, Document]]) -> list[tuple[Part, Document]]:
    """The first documents, of a bounded number and length, but until two have different texts."""
    opening: list[tuple[Part, Document]] = []
    texts: set[str] = set()
    characters = 0
    for part, document in documents:
        opening.append((part, document))
        characters += sum(map(len, document.paragraphs))
        texts.add(document.text)
        if len(texts) > 1 and (len(opening) == _OPENING_DOCUMENTS or characters > LONGEST_DOCUMENT):
            break
    return opening


def _refuse_undivided(documents: Sequence[Document]) -> None:
    """Raises ValueError where documents with one text at most cannot be divided by their paragraphs."""
    if not documents:
        raise ValueError(_NO_TEXT)
    if len(documents) > 1:
        raise ValueError(
            f"documents ({len(documents):,}, all with one text) must have at least 2 texts, one to hold out; add "
            "others."
        )
    if len(documents[0].paragraphs) < 2:
        raise ValueError(
            f"corpus (one paragraph, {documents[0].source}) must have at least 2 paragraphs, one to hold out; "
            "put blank lines between paragraphs or add documents."
        )


class _Sides:
    """Which documents are held out.

    Args:
        opening: The first documents of the corpus.
        share: Share of the documents held out.
    """

    def __init__(self, opening: Sequence[Document], share: float) -> None:
        first, *others = dict.fromkeys(document.text for document in opening if not document.is_cut) or [""]
        # Two where that is not much: a next sentence may be one of another document.
        least = 2 if len(others) >= _ENOUGH_FOR_TWO else 1
        number = max(least, round((1 + len(others)) * share))
        self._held_out = set(sorted(others, key=lambda text: _short_hash(text.encode()))[:number])
        self._trained = {first, *others} - self._held_out
        self._share = share
        self.are_both = bool(self._held_out) or any(document.is_cut for document in opening)

    def of(self, document: Document, split: Split) -> Document | None:
        """A document, where it is of a split."""
        text = document.text
        is_known = text in self._held_out or text in self._trained
        is_held_out = text in self._held_out if is_known else falls_under(text.encode(), self._share)
        return document if is_held_out == (split == "validation") else None
