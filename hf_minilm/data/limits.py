"""How much text is taken at once, so that no file can take the memory or the time of a run: what is longer is cut.

Nothing here changes a text that a person wrote as one; what was cut is counted, so that a run can say so.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator

LONGEST_PARAGRAPH = 100_000
"""Characters of a paragraph: a tokenizer takes about 100 bytes of memory for each character of one."""

LONGEST_DOCUMENT = 4_000_000
"""Characters of a document, about those of the Bible."""

LONGEST_WORD = 1_000
"""Characters between two spaces: training a tokenizer takes a time that grows with the square of a word."""

LONGEST_RECORD = 32 * 2**20
"""Bytes of a line of JSON or TSV, and of a text in Parquet: a record is read as a whole."""

LONGEST_PIECE = 2**20
"""Bytes of a text file that are read at once: a longer line comes in pieces."""

_MOST_EXPANSION = 500  # times; gzip's most is 1032, text's about 10
_NOT_YET_ABSURD = 4 * 2**20  # bytes

LONG_PARAGRAPHS = f"paragraphs cut after {LONGEST_PARAGRAPH:,} characters"
LONG_DOCUMENTS = f"documents cut after {LONGEST_DOCUMENT:,} characters"
LONG_WORDS = f"documents with words of over {LONGEST_WORD:,} characters"
REPLACED = "documents with U+FFFD in the place of bytes that are not UTF-8"

CONVERSION = "for Windows-1252 with `iconv -f WINDOWS-1252 -t UTF-8`"
"""How to make UTF-8 of the encoding that is met most often beside it; it has Latin-1's letters too."""

_REPLACEMENT = "\ufffd"
_NOT_YET_SPOILT, _ONE_IN = 100, 1_000  # U+FFFD at least, and among so many characters


class Replacements:
    """Counts U+FFFD over a pass through a corpus, so that a few bad bytes are borne and another encoding is not.

    In Latin-1 each accented letter is a byte that is not UTF-8: two or three of 100 letters in Spanish. The count is
    over all files, as a folder may have thousands of small ones.
    """

    def __init__(self) -> None:
        self._replaced = self._characters = 0

    def are_in(self, texts: Iterable[str], source: str) -> bool:
        """Count the characters of some texts, and tell whether any was replaced.

        Raises:
            ValueError: So many were that the corpus must be in another encoding; `source` is named.
        """
        found = 0
        for text in texts:
            found += text.count(_REPLACEMENT)
            self._characters += len(text)
        self._replaced += found
        if self._replaced >= _NOT_YET_SPOILT and self._replaced * _ONE_IN > self._characters:
            raise ValueError(
                f"bytes that are not UTF-8 ({self._replaced:,} among {self._characters:,} characters up to {source}) "
                f"must be at most 1 in {_ONE_IN:,}; convert the text, {CONVERSION}."
            )
        return found > 0


def cut_paragraph(paragraph: str, changed: "Counter[str]") -> Iterator[str]:
    """Cut a paragraph that is too long, at spaces where it has them; count the cuts."""
    begin = 0
    while len(paragraph) - begin > LONGEST_PARAGRAPH:
        end = begin + LONGEST_PARAGRAPH
        space = paragraph.rfind(" ", begin + LONGEST_PARAGRAPH // 2, end)
        end = end if space == -1 else space
        changed[LONG_PARAGRAPHS] += 1
        yield paragraph[begin:end].strip()
        begin = end
    yield paragraph[begin:].strip()


def cut_document(paragraphs: Iterable[str], changed: "Counter[str]") -> Iterator[tuple[tuple[str, ...], bool]]:
    """Cut a document that is too long between two paragraphs; one without any stays one; count the cuts.

    Yields:
        The paragraphs of a piece, and whether there are others.
    """
    part: list[str] = []
    characters, is_cut = 0, False
    for paragraph in paragraphs:
        if part and characters + len(paragraph) > LONGEST_DOCUMENT:
            changed[LONG_DOCUMENTS] += 1
            is_cut = True
            yield tuple(part), is_cut
            part, characters = [], 0
        part.append(paragraph)
        characters += len(paragraph)
    yield tuple(part), is_cut


def has_long_word(text: str) -> bool:
    """Tell whether a text has so many characters without a space that no language can have written them."""
    return len(text) > LONGEST_WORD and max(map(len, text.split()), default=0) > LONGEST_WORD


def part_long_words(text: str) -> str:
    """Put spaces into words that are too long."""
    if not has_long_word(text):
        return text
    return " ".join(
        word[begin : begin + LONGEST_WORD] for word in text.split() for begin in range(0, len(word), LONGEST_WORD)
    )


def is_bomb(expanded: int, compressed: int) -> bool:
    """Tell from its bytes whether a compressed file expands as no text does."""
    return expanded > _NOT_YET_ABSURD and expanded > _MOST_EXPANSION * compressed


def rows_at_once(num_rows: int, num_bytes: int, most: int) -> int:
    """Say how many rows of a table to read at once, so that they take about half of the longest record."""
    return max(1, min(most, math.ceil(LONGEST_RECORD / 2 * num_rows / max(num_bytes, 1))))
