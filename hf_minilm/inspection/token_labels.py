"""Tokens as a reader would spell them: `niña` and not `niÃ±a`, no mark for a space, nothing that is invisible."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

CONTINUES = "##"
"""Stands before a token that goes on with a word, whatever mark its tokenizer has for it."""

LONGEST = 40
"""Characters of a label; a longer token is cut."""

_SPACE_MARK = "▁"
_VISIBLE = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"}


@dataclass(frozen=True, slots=True)
class TokenLabel:
    """One token for a picture.

    Attributes:
        text: What is shown; it has no invisible and no control characters.
        is_special: Whether it stands for something other than its letters, as [CLS] and [MASK] do.
    """

    text: str
    is_special: bool = False


def token_labels(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[TokenLabel, ...]:
    r"""Spell tokens for a reader.

    Spaces between words are left out, and `##` stands before what goes on with a word, as WordPiece has it. A byte that
    is a part of a character is written as `\xc3`.

    Args:
        tokenizer: The one that made the ids, or whose ids a model wrote.
        ids: Token ids.

    Returns:
        A label for each id.
    """
    special = {*tokenizer.all_special_ids}
    special |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    read = _reader_of(tokenizer)
    labels, before = [], ""
    for number, token in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        if number in special or token is None:  # None where a model's vocabulary is the larger one
            labels.append(TokenLabel(f"⟨{number}⟩" if token is None else _visible(token), is_special=True))
            before = ""
        else:
            text, goes_on = read(token, before)
            labels.append(TokenLabel((CONTINUES if goes_on else "") + _visible(text)))
            before = text
    return tuple(labels)


def _reader_of(tokenizer: PreTrainedTokenizerBase) -> Callable[[str, str], tuple[str, bool]]:
    """Give what spells a token, and tells whether it goes on with the word that the text before it ends with."""
    kinds = _decoder_kinds(tokenizer)
    if "WordPiece" in kinds:
        return lambda token, _: (token.removeprefix("##"), token.startswith("##"))
    if "ByteLevel" in kinds:
        byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
        return lambda token, before: _joined(_from_bytes(token, byte_of), before)
    if kinds & {"Metaspace", "Replace"}:
        return lambda token, before: _joined(token.replace(_SPACE_MARK, " "), before)
    return lambda token, _: (token, False)


def _decoder_kinds(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Name the steps by which a tokenizer makes text of tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder: dict[str, Any] = json.loads(backend.to_str())["decoder"] or {} if backend is not None else {}
    return {step["type"] for step in decoder.get("decoders", [decoder]) if "type" in step}


def _from_bytes(token: str, byte_of: dict[str, int]) -> str:
    if not set(token) <= byte_of.keys():
        return token  # one that was added as it stands
    return bytes(byte_of[character] for character in token).decode("utf-8", errors="backslashreplace")


def _joined(text: str, before: str) -> tuple[str, bool]:
    return text, before[-1:].isalnum() and text[:1].isalnum()


def _visible(text: str) -> str:
    """Cut a space before a word, and show what else could not be seen."""
    text = text[1:] if len(text) > 1 and text.startswith(" ") else text
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    shown = (
        _VISIBLE.get(character) or (character if character.isprintable() else f"⟨U+{ord(character):04X}⟩")
        for character in text
    )
    return "".join(shown) or "∅"
