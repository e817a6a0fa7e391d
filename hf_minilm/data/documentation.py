"""The built-in corpus `builtin:docs`: the prose in the docstrings of the Python libraries that are installed.

Source files are parsed and never imported. A module is a document, and a paragraph that appeared before (libraries
repeat themselves a great deal) is left out, so that no held-out document quotes a training one.
"""

import ast
import importlib.metadata
import importlib.util
import inspect
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from .document import Document

PACKAGES = ("accelerate", "datasets", "huggingface_hub", "numpy", "tokenizers", "torch", "transformers")
_SHORTEST_PARAGRAPH = 6  # words
_SMALLEST_LETTER_SHARE = 0.75  # of the characters; formulas and option lists fall under it
_LARGEST_FILE = 1_000_000  # bytes; larger modules are generated tables
_IGNORED_FOLDERS = frozenset({"__pycache__", "dist-packages", "idlelib", "site-packages", "test", "tests", "testing"})

_TABLE_SECTIONS = frozenset(
    {
        "parameters",
        "other parameters",
        "returns",
        "yields",
        "raises",
        "warns",
        "receives",
        "attributes",
        "methods",
        "examples",
        "example",
        "see also",
        "references",
    }
)
_UNDERLINE = re.compile(r"([-=~^*#\"'])\1{2,}\s*$")
_NOT_PROSE = re.compile(r"\s|>>>|\.\.\.(\s|$)|\.\. |[|+$@<{]|[-*•]\s|\(?\w{1,2}[.)]\s|:\w[^:`]*:(?!`)|#|\w+ : ")
_FENCE = re.compile(r"^(```|~~~).*?(^\1|\Z)", re.MULTILINE | re.DOTALL)
_MARK_UP = (
    (re.compile(r":[\w:+.-]+:`(?:[^`<]*<)?[~!]?([^`<>]+)>?`"), r"\1"),  # :class:`~package.Name`
    (re.compile(r"`([^`<]+?)\s*<[^`>]+>`__?"), r"\1"),  # `text <address>`_
    (re.compile(r"!?\[([^\]]+)\]\([^)]*\)"), r"\1"),  # [text](address)
    (re.compile(r"\[`~?([^`]+)`\]"), r"\1"),  # [`~package.Name`]
    (re.compile(r"``?([^`]+)``?(?:__?(?!\w))?"), r"\1"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])"), r"\1"),
    (re.compile(r"::$"), ":"),
)


def documentation_documents(folders: Mapping[str, Path] | None = None) -> Iterator[Document]:
    """Reads the prose in the docstrings of Python source files, a module at a time.

    Args:
        folders: The folder of each library by its name. By default the standard library and those of `PACKAGES` that
            are installed.

    Yields:
        One document for each module that has prose, in the order of the names of libraries and files.
    """
    seen: set[str] = set()
    for name, folder in sorted((_installed_folders() if folders is None else folders).items()):
        for path in _source_files(folder):
            paragraphs = tuple(text for text in dict.fromkeys(_module_paragraphs(path)) if text not in seen)
            seen.update(paragraphs)
            if paragraphs:
                yield Document(paragraphs, f"docs:{name}/{path.relative_to(folder).as_posix()}")


@cache
def installed_documentation() -> tuple[Document, ...]:
    """Reads `documentation_documents` of what is installed, once a process: parsing takes half a minute."""
    return tuple(documentation_documents())


def documentation_versions() -> str:
    """Names what the documentation corpus depends on: Python's version and those of the installed libraries."""
    versions = [f"python=={platform.python_version()}"]
    versions += [
        f"{name}=={importlib.metadata.version(name)}" for name in sorted(_installed_folders()) if name in PACKAGES
    ]
    return " ".join(versions)


def prose(docstring: str) -> Iterator[str]:
    """Yields the paragraphs of prose in a docstring, without mark-up.

    Doctests, code, literal blocks, lists and tables of parameters are left out, and so are paragraphs of fewer than
    six words.
    """
    text = _FENCE.sub("\n\n", inspect.cleandoc(docstring))
    in_table = False
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip("\n").split("\n")
        if len(lines) > 1 and _UNDERLINE.match(lines[1]):
            in_table = lines[0].strip().lower() in _TABLE_SECTIONS
            lines = lines[2:]
        if in_table or not lines or any(_NOT_PROSE.match(line) or _UNDERLINE.match(line) for line in lines):
            continue
        paragraph = " ".join(" ".join(lines).split())
        for pattern, replacement in _MARK_UP:
            paragraph = pattern.sub(replacement, paragraph)
        if _reads_as_prose(paragraph):
            yield paragraph


def _reads_as_prose(paragraph: str) -> bool:
    words = paragraph.split()
    letters = sum(character.isalpha() for character in paragraph)
    return len(words) >= _SHORTEST_PARAGRAPH and letters >= _SMALLEST_LETTER_SHARE * len(paragraph)


def _module_paragraphs(path: Path) -> Iterator[str]:
    source = path.read_bytes()
    if b'"""' not in source and b"'''" not in source:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escape sequences
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return  # templates and files kept broken on purpose
    for node in _documented(tree):
        docstring = ast.get_docstring(node, clean=False)
        if docstring:
            yield from prose(docstring)


def _documented(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Walks modules, classes and functions in reading order, without descending into expressions."""
    yield node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child)


def _source_files(folder: Path) -> list[Path]:
    """The Python files in a library's folder, small enough to be written by hand, sorted by their relative path."""
    found = [
        path
        for path in folder.rglob("*.py")
        if not _IGNORED_FOLDERS.intersection(path.relative_to(folder).parts)
        and path.is_file()
        and path.stat().st_size <= _LARGEST_FILE
    ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _installed_folders() -> dict[str, Path]:
    folders = {"python": Path(sysconfig.get_paths()["stdlib"])}
    for name in PACKAGES:
        specification = importlib.util.find_spec(name)
        if specification is not None and specification.origin is not None:
            folders[name] = Path(specification.origin).parent
    return folders
