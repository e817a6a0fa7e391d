"""A corpus: documents from files, folders, Hub data sets and the built-in sources, in a training and a held-out part.

Which documents are held out depends on their text: of the opening, up to 64 documents, those whose hashes are least, as
many as the share asks for, at least one, of 16 texts two, but never the first; of the others each whose hash falls
under the share. So equal documents are in the same part, both parts have one as soon as there are two texts, and both
can be streamed. Of a text that is too long to be read at once, the share is taken from the end of each piece.
"""

import difflib
import glob
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .document import Document
from .documentation import documentation_versions, installed_documentation
from .limits import LONG_WORDS, LONGEST_DOCUMENT, REPLACED, Replacements, has_long_word
from .readers import SUFFIXES, HubDataset, read_file, suffix_of
from .world import World, check_split

Split = Literal["train", "validation"]
_WORLD = "builtin:world"
BUILTIN_SOURCES = (_WORLD, "builtin:docs")
SAMPLED_STORIES = 64  # the opening stories of a built-in source show a change of its lexicon or grammar
_FEWEST_HELD_OUT_STORIES = 200
_OPENING_DOCUMENTS = 64
_ENOUGH_FOR_TWO = 15
_NO_FILES = "pipes, devices and links to nothing"
_LINKS_UP = "links to a folder that they are in"
_NO_TEXT = "corpus (0 documents) must have text; name sources that are not empty."
# Part of every fingerprint: a change in how sources become documents needs another number.
_READING_VERSION = 3


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read.

    Attributes:
        path: Where it is.
        named: Whether the user named it, rather than a folder or glob that it is in: then it must have something.
    """

    path: Path
    named: bool

    def identity(self) -> str:
        """Its name and the SHA-256 of its bytes."""
        with self.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
        return f"file {self.path.name} {digest.hexdigest()}"


Part = SourceFile | HubDataset | str


class Stamps:
    """Sizes and times of files whose bytes were hashed: what is kept of a file bears that hash."""

    def __init__(self) -> None:
        self._stamps: dict[Path, tuple[int, int]] = {}

    def identity(self, file: SourceFile) -> str:
        """The file's identity, and a note of when it was taken."""
        self._stamps[file.path] = _stamp(file.path)
        return file.identity()

    def check(self) -> None:
        """Raises ValueError where a file has another size or time than before its bytes were hashed."""
        for path, stamp in self._stamps.items():
            if _stamp(path) != stamp:
                raise ValueError(f"file ({path}) must stay as it is while it is read, and changed; start again.")


def _stamp(path: Path) -> tuple[int, int]:
    now = path.stat()
    return now.st_size, now.st_mtime_ns


class Corpus:
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
        check_settings(
            sources,
            builtins=BUILTIN_SOURCES,
            encoding_errors=encoding_errors,
            world_documents=world_documents,
            validation_share=validation_share,
        )
        self._encoding_errors = encoding_errors
        self._world_documents = world_documents
        self._validation_share = validation_share
        self._skipped: Counter[str] = Counter()
        self._changed: Counter[str] = Counter()
        self._stamps = Stamps()
        self._fingerprint: str | None = None
        self._world = World(languages, seed=seed) if _WORLD in sources else None
        self._only_world = list(sources) == [_WORLD]
        self._parts, self._skipped_paths = resolve_sources(sources, builtins=BUILTIN_SOURCES, suffixes=SUFFIXES)

    @property
    def world(self) -> World | None:
        """The generator of the documents, where the corpus is `builtin:world` and nothing else."""
        return self._world if self._only_world else None

    @property
    def skipped(self) -> dict[str, int]:
        """How many "unknown files", "repeated sources", "empty files" and the like were passed over.

        The files are known from the start, what is empty after the latest pass over `documents`.
        """
        return dict(self._skipped_paths + self._skipped)

    @property
    def changed(self) -> dict[str, int]:
        """How much was cut or replaced in the latest pass over `documents`, see `limits`."""
        return dict(self._changed)

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

    @property
    def num_sources(self) -> int:
        """How many files, Hub data sets and built-in sources there are."""
        return len(self._keys)

    def sources_shared_with(self, other: "Corpus") -> int:
        """How many of them another corpus has too."""
        return len(self._keys & other._keys)

    def undivided(self) -> Iterator[Document]:
        """Streams the documents of both parts in their order, but for the stories of `builtin:world`.

        Raises:
            ValueError: a file is malformed, or there is no text.
            OSError: a file or the Hub cannot be read.
        """
        skipped = self._skipped = Counter()
        self._changed = Counter()
        documents = self._found_documents(skipped)
        first = next(documents, None)
        if first is None:
            raise ValueError(_NO_TEXT)
        yield from (document for _, document in itertools.chain([first], documents))

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the bytes of the files in order and of all else that shapes the documents.

        Raises:
            OSError: a file or the Hub cannot be read.
        """
        if self._fingerprint is None:
            settings = f"{_READING_VERSION} {self._encoding_errors} {self._validation_share!r}"
            self._fingerprint = joint_hash((settings, *map(self._identity, self._parts)))
        return self._fingerprint

    def check_unchanged(self) -> None:
        """Raises ValueError where a file has changed since `fingerprint` was first asked for."""
        self._stamps.check()

    @property
    def _keys(self) -> frozenset[Path | str]:
        return frozenset(map(_key, self._parts))

    def _divide(self, split: Split, kept: frozenset[Path | str] | None = None) -> Iterator[Document]:
        """The documents of one part; only those of some sources, where they are named."""
        skipped = self._skipped = Counter()
        self._changed = Counter()
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
            if kept is not None and _key(part) not in kept:
                continue
            own = self._part_of(document, split) if document.is_cut or is_alone else sides.of(document, split)
            if own is not None:
                yield own

    def _stories(self, world: World, split: Split) -> Iterator[Document]:
        return world.documents(num_stories(split, self._world_documents, self._validation_share), split=split)

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

    def _identity(self, part: Part) -> str:
        if isinstance(part, SourceFile):
            return self._stamps.identity(part)
        if isinstance(part, HubDataset):
            return f"hub {part.fingerprint()}"
        if part == "builtin:docs":
            return f"{part} {documentation_versions()}"
        assert self._world is not None  # made with the sources
        opening = "\n".join(story.text for story in self._world.documents(SAMPLED_STORIES))
        return f"{part} {self._world.languages} {self._world.seed} {self._world_documents} {opening}"


def check_settings(
    sources: Sequence[str],
    *,
    builtins: Sequence[str],
    encoding_errors: str,
    world_documents: int,
    validation_share: float,
) -> None:
    """Raises ValueError where a setting that all corpora have is out of range."""
    if isinstance(sources, str) or not sources:
        raise ValueError(f"sources ({sources!r}) must be a list of at least one source; name a file or {builtins[0]}.")
    if not 0.0 < validation_share < 1.0:
        raise ValueError(f"validation_share ({validation_share}) must be between 0 and 1; try 0.05.")
    if encoding_errors not in ("strict", "replace"):
        raise ValueError(f"encoding_errors ({encoding_errors}) must be strict or replace; choose one of them.")
    if world_documents < 1:
        raise ValueError(f"world_documents ({world_documents}) must be at least 1; give a larger number.")


def resolve_sources(
    sources: Sequence[str], *, builtins: Sequence[str], suffixes: Sequence[str]
) -> tuple[list[Part], "Counter[str]"]:
    """Finds what the sources name: files, Hub data sets and built-in sources, each once, in order.

    Args:
        sources: As `Corpus` takes them.
        builtins: The names of the built-in sources.
        suffixes: Those of the files that can be read.

    Returns:
        The parts, and how many "unknown files" and "repeated sources" were passed over.

    Raises:
        ValueError: a source has no known form or suffix, or a folder has no file to read.
        FileNotFoundError: a path does not exist, or a glob matches nothing.
    """
    parts: list[Part] = []
    seen: set[Path | str] = set()
    skipped: Counter[str] = Counter()
    for source in sources:
        if source.startswith("builtin:"):
            candidates: list[Part] = [_builtin(source, builtins)]
        elif source.startswith("hub:"):
            candidates = [HubDataset(source.removeprefix("hub:"))]
        else:
            candidates = list(_files(source, suffixes, skipped))
        for part in candidates:
            key = _key(part)
            if key in seen:
                skipped["repeated sources"] += 1
                continue
            seen.add(key)
            parts.append(part)
    return parts, skipped


def _key(part: Part) -> Path | str:
    """What two names of one source have in common."""
    return part.path.resolve() if isinstance(part, SourceFile) else name_of(part)


def name_of(part: Part) -> str:
    """What a person calls a source."""
    if isinstance(part, SourceFile):
        return str(part.path)
    return f"hub:{part.address}" if isinstance(part, HubDataset) else part


def num_stories(split: Split, world_documents: int, validation_share: float) -> int:
    """How many stories of a built-in source one part has: the held-out ones are a share of the others, at least 200."""
    if split == "train":
        return world_documents
    return max(_FEWEST_HELD_OUT_STORIES, round(world_documents * validation_share))


def joint_hash(values: Iterable[str]) -> str:
    """The SHA-256 (hex) of texts in order, and of where each ends."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(f"{len(value)}:{value}\n".encode())
    return digest.hexdigest()


def falls_under(content: bytes, share: float) -> bool:
    """Whether the hash of some bytes falls under a share of all hashes."""
    return int.from_bytes(_short_hash(content), "little") < share * 2**64


def _short_hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def _builtin(source: str, builtins: Sequence[str]) -> str:
    if source in builtins:
        return source
    nearest = difflib.get_close_matches(source, builtins, n=1, cutoff=0.0)[0]
    raise ValueError(f"source ({source}) must be {' or '.join(builtins)}; the nearest is {nearest}.")


def _files(source: str, suffixes: Sequence[str], skipped: "Counter[str]") -> list[SourceFile]:
    path = Path(source).expanduser()
    if path.is_file():
        if suffix_of(path, suffixes) is None:
            raise ValueError(f"source ({source}) must end in one of {', '.join(suffixes)}; rename or convert it.")
        return [SourceFile(path, named=True)]
    # A name that exists is no pattern, whatever characters it has.
    matches = [path] if path.exists() else _matches(path)
    if not matches:
        raise FileNotFoundError(f"source ({source}) must be a file, folder or glob that exists; check the path.")
    found = [file for match in matches for file in _files_under(match, skipped)]
    known = [SourceFile(file, named=False) for file in found if suffix_of(file, suffixes) is not None]
    skipped["unknown files"] += len(found) - len(known)
    if not known:
        raise ValueError(f"source ({source}) must have files ending in one of {', '.join(suffixes)}; add one.")
    return known


def _matches(pattern: Path) -> list[Path]:
    """The paths that match, sorted. `**` follows no link to a folder: two that go round in a circle would never end."""
    parts = pattern.parts
    fixed = next((place for place, part in enumerate(parts) if glob.has_magic(part)), None)
    if fixed is None:
        return []
    base, rest = Path(*parts[:fixed]), parts[fixed:]
    found = sorted(base.glob("/".join(rest)))
    if any(_is_hidden(part) for part in rest):
        return found
    return [match for match in found if not any(map(_is_hidden, match.relative_to(base).parts))]


def _files_under(path: Path, skipped: "Counter[str]") -> list[Path]:
    """The file itself, or the files in the folder and below that are not hidden, sorted by their relative path."""
    found = sorted(_names_under(path, skipped), key=lambda file: file.relative_to(path)) if path.is_dir() else [path]
    files = [file for file in found if file.is_file()]
    skipped[_NO_FILES] += len(found) - len(files)
    return files


def _names_under(path: Path, skipped: "Counter[str]") -> Iterator[Path]:
    """All that is no folder in a folder and below, without what is hidden.

    Links to folders are followed after all else, so that a folder has the name of its own place if it has one here. One
    that was read before is not read again, nor one that the link is in: most of it nobody has named.
    """

    def fail(error: OSError) -> None:
        raise error

    read: set[Path] = set()
    waiting = [path]
    while waiting:
        links: list[Path] = []
        for top in waiting:
            if top.resolve() in read:
                continue
            if top is not path and top.resolve() in top.parent.resolve().parents:
                skipped[_LINKS_UP] += 1
                continue
            for folder, folders, names in os.walk(top, onerror=fail):
                read.add(Path(folder).resolve())
                inner = [Path(folder, name) for name in sorted(folders) if not _is_hidden(name)]
                links += filter(Path.is_symlink, inner)
                folders[:] = [each.name for each in inner if each.is_symlink() or each.resolve() not in read]
                yield from (Path(folder, name) for name in names if not _is_hidden(name))
        waiting = sorted(links)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and name != ".."


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
