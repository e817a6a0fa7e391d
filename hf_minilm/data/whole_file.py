"""Files that are the old one or the new one at every moment, whoever reads them and whatever ends the writing."""

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8 beside its place first, and then put it there; one of that name is replaced."""
    writing = path.with_name(f".{path.name}.writing")
    writing.write_text(text, encoding="utf-8")
    writing.replace(path)
