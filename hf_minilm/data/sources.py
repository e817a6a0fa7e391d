"""What a corpus is read from: files, folders, globs, Hub data sets and built-in sources, each read once, in order."""

import difflib
import glob
import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from .readers import HubDataset, suffix_of

Split = Literal["train", "validation"]
SAMPLED_STORIES = 64  # the opening stories of a built-in source show a change of its lexicon or grammar
_FEWEST_HELD_OUT_STORIES = 200
_NO_FILES = "pipes, devices and links to nothing"
_LINKS_UP = "links to a folder that they are in"


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


class SourcedCorpus(ABC):
    """What all kinds of corpora have: sources, counts of what was passed over or changed, and a fingerprint.

    Args:
        sources: As `Corpus` takes them.
        builtins: The names of the built-in sources.
        suffixes: Those of the files that can be read.
        encoding_errors: As `Corpus` takes it, like the others.
        world_documents: See `Corpus`.
        validation_share: See `Corpus`.

    Raises:
        ValueError: a source has no known form or suffix, a folder has no file to read, or a setting is out of range.
        FileNotFoundError: a path does not exist, or a glob matches nothing.
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        builtins: Sequence[str],
        suffixes: Sequence[str],
        encoding_errors: str,
        world_documents: int,
        validation_share: float,
    ) -> None:
        if isinstance(sources, str) or not sources:
            raise ValueError(
                f"sources ({sources!r}) must be a list of at least one source; name a file or {builtins[0]}."
            )
        if not 0.0 < validation_share < 1.0:
            raise ValueError(f"validation_share ({validation_share}) must be between 0 and 1; try 0.05.")
        if encoding_errors not in ("strict", "replace"):
            raise ValueError(f"encoding_errors ({encoding_errors}) must be strict or replace; choose one of them.")
        if world_documents < 1:
            raise ValueError(f"world_documents ({world_documents}) must be at least 1; give a larger number.")
        self._encoding_errors = encoding_errors
        self._world_documents = world_documents
        self._validation_share = validation_share
        self._skipped: Counter[str] = Counter()
        self._changed: Counter[str] = Counter()
        self._stamps: dict[Path, tuple[int, int]] = {}  # sizes and times of the files whose bytes were hashed
        self._fingerprint: str | None = None
        self._parts, self._skipped_paths = resolve_sources(sources, builtins=builtins, suffixes=suffixes)

    @property
    def skipped(self) -> dict[str, int]:
        """How many "unknown files", "repeated sources", "empty files" and the like were passed over.

        The files are known from the start, what is empty after the latest pass.
        """
        return dict(self._skipped_paths + self._skipped)

    @property
    def changed(self) -> dict[str, int]:
        """How much was cut or replaced in the latest pass, see `limits`."""
        return dict(self._changed)

    @property
    def num_sources(self) -> int:
        """How many files, Hub data sets and built-in sources there are."""
        return len(self._keys)

    def sources_shared_with(self, other: Self) -> int:
        """How many of them another corpus has too."""
        return len(self._keys & other._keys)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the bytes of the files in order and of all else that shapes what is read.

        Raises:
            OSError: a file or the Hub cannot be read.
        """
        if self._fingerprint is None:
            self._fingerprint = joint_hash((self._reading(), *map(self._identity, self._parts)))
        return self._fingerprint

    def check_unchanged(self) -> None:
        """Raises ValueError where a file has another size or time than before its bytes were hashed for a fingerprint.

        What is kept of a file bears that hash.
        """
        for path, stamp in self._stamps.items():
            if _stamp(path) != stamp:
                raise ValueError(f"file ({path}) must stay as it is while it is read, and changed; start again.")

    @property
    def _keys(self) -> frozenset[Path | str]:
        return frozenset(map(key_of, self._parts))

    def _new_pass(self) -> "Counter[str]":
        """Begin to count anew what is passed over and what is changed; the former, for this pass alone."""
        self._skipped, self._changed = Counter(), Counter()
        return self._skipped

    def _num_stories(self, split: Split) -> int:
        """How many stories of a built-in source one part has: held out is a share of the others, at least 200."""
        if split == "train":
            return self._world_documents
        return max(_FEWEST_HELD_OUT_STORIES, round(self._world_documents * self._validation_share))

    def _identity(self, part: Part) -> str:
        if isinstance(part, SourceFile):
            self._stamps[part.path] = _stamp(part.path)
            return part.identity()
        return f"hub {part.fingerprint()}" if isinstance(part, HubDataset) else self._builtin_identity(part)

    @abstractmethod
    def _reading(self) -> str:
        """The settings, and a number for how sources are read: the first part of every fingerprint."""

    @abstractmethod
    def _builtin_identity(self, name: str) -> str:
        """What a built-in source is made from, with how it begins."""


def _stamp(path: Path) -> tuple[int, int]:
    now = path.stat()
    return now.st_size, now.st_mtime_ns


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
            key = key_of(part)
            if key in seen:
                skipped["repeated sources"] += 1
                continue
            seen.add(key)
            parts.append(part)
    return parts, skipped


def key_of(part: Part) -> Path | str:
    """What two names of one source have in common."""
    return part.path.resolve() if isinstance(part, SourceFile) else name_of(part)


def name_of(part: Part) -> str:
    """What a person calls a source."""
    if isinstance(part, SourceFile):
        return str(part.path)
    return f"hub:{part.address}" if isinstance(part, HubDataset) else part


def joint_hash(values: Iterable[str]) -> str:
    """The SHA-256 (hex) of texts in order, and of where each ends."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(f"{len(value)}:{value}\n".encode())
    return digest.hexdigest()


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
