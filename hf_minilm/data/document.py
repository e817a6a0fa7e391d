"""A document, and where the sentences of a paragraph begin and end."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One text that stands by itself: a story, an article, a novel, a module's documentation.

    Attributes:
        paragraphs: The paragraphs in reading order, none of them empty.
        source: Where the document came from, such as `novels.jsonl.gz:17` or `world:es:train:12`.
        is_cut: Whether it is a piece of a text that was too long to be read at once.
    """

    paragraphs: tuple[str, ...]
    source: str
    is_cut: bool = False

    @property
    def text(self) -> str:
        """The whole text: the paragraphs, one line break between each two."""
        return "\n".join(self.paragraphs)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A title or a reference always leads on to a name or a number, so it never ends a sentence.
_LEADING_ABBREVIATIONS = _words(
    """
    sr sra srta sres sras srtas dr dra dres prof profa lic ing arq gral cnel cap tte sgto fr hno hna mons rvdo excmo
    excma ilmo ilma ud uds vd vds d dña dn sto sta avda pza núm nº pág págs vol vols fig figs cf vid ej art arts cap
    caps ee s.m ss.mm mr mrs ms messrs dr drs prof rev hon st mt gen col capt lt sgt cpl pvt maj adm gov sen rep pres
    no nos pp p vs viz i.e e.g eq eqs sec secs ch chap ed eds fasc tel ext a.c ca
    """
)
# These are ordinary words too ("he said no.", "three p."), abbreviations only before a number.
_BEFORE_NUMBERS_ONLY = _words("no nos p pp art arts ch sec secs ed cap caps fig figs eq st")
# After an abbreviation such as "U.S." or "a.m.", these words show that a new sentence has begun.
_SENTENCE_OPENERS = _words(
    """
    the a an this that these those he she it we they i you in on at but and when while if there then however after
    before for as what who why how his her its our their my your one some no not so yet
    el la los las un una unos unas lo este esta esto estos estas ese esa eso aquel aquella él ella ellos ellas yo tú
    nosotros en con por para pero y cuando mientras si entonces después antes sin de desde hasta su sus mi mis tu tus
    qué quién cómo dónde no ya también así al del se
    """
)
# A full stop, question or exclamation mark or ellipsis with the closing quotes and brackets that hang on it. What comes
# after is white space or a dialogue dash; "3.14", "example.org" and "v1.2" have neither and so never match. A match
# begins where its run of marks begins and gives nothing back, or a line of a million dots would take a square of that.
_CANDIDATE = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]*_]*+(?=\s|[—–])")
_OPENERS = re.compile(r"[\s\"'“‘«(\[*_¿¡—–-]*")
_LAST_WORD = re.compile(r"[\"'“‘«(\[¿¡—–-]*([^\s\"'“‘«(\[¿¡—–]*)$")
_NEXT_WORD = re.compile(r"\w+")
_LONGEST_WORD = 40


def split_sentences(paragraph: str) -> list[tuple[int, int]]:
    """Splits a Spanish or English paragraph into sentences by rule.

    A sentence ends at `.`, `!`, `?` or an ellipsis that is followed by white space (or by a dialogue dash) and then by
    an upper-case letter, a digit or a letter without case. Titles ("Sra."), references ("pág. 12"), initials ("J. L.
    Borges"), list numbers ("1. ") and decimals do not end one, nor does the end of a quotation that its speaker's verb
    continues ("—¡Ven! —dijo ella.").

    Args:
        paragraph: Any text; line breaks count as white space.

    Returns:
        Half-open character spans in order. They do not overlap, none begins or ends with white space, and together
        they cover every character that is not white space.
    """
    spans: list[tuple[int, int]] = []
    begin = _skip_space(paragraph, 0)
    for match in _CANDIDATE.finditer(paragraph):
        if match.start() > begin and _ends_sentence(paragraph, begin, match):
            spans.append((begin, match.end()))
            begin = _skip_space(paragraph, match.end())
    end = len(paragraph.rstrip())
    if begin < end:
        spans.append((begin, end))
    return spans


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _ends_sentence(paragraph: str, begin: int, match: re.Match[str]) -> bool:
    following = _OPENERS.match(paragraph, match.end())
    assert following is not None  # the pattern matches the empty string
    position = following.end()
    if position == len(paragraph):
        return False
    first = paragraph[position]
    if not first.isalnum() or first.islower():
        return False
    if match.group()[0] != "." or match.group().startswith(".."):
        return True
    return not _is_abbreviation(paragraph, begin, match.start(), position)


def _is_abbreviation(paragraph: str, begin: int, stop: int, following: int) -> bool:
    """Whether the full stop at `stop` belongs to the word before it; the text goes on at `following`."""
    preceding = _LAST_WORD.search(paragraph, max(begin, stop - _LONGEST_WORD), stop)
    word = preceding.group(1) if preceding else ""
    if word.isdigit():
        return not paragraph[begin : stop - len(word)].strip("\"'“‘«([¿¡—– ")
    lowered = word.lower()
    if lowered in _LEADING_ABBREVIATIONS:
        return lowered not in _BEFORE_NUMBERS_ONLY or paragraph[following].isdigit()
    next_word = _NEXT_WORD.match(paragraph, following)
    opens = next_word is not None and next_word.group().lower() in _SENTENCE_OPENERS
    if len(word) == 1 and word.isupper():
        return not opens
    is_acronym = "." in word and all(len(part) <= 2 for part in word.split("."))
    return is_acronym and not opens
