"""A drawing of one attention map for a document, which stands alone: no script, style or font is fetched.

The shade of a cell is the square root of its weight, so that a weight of 1 in 40, which is what even attention over 40
tokens gives, can still be seen.

Shapes: T query positions, S key positions.
"""

import html
import re
import unicodedata
from collections.abc import Sequence

import torch

CELL, FONT_SIZE, CHARACTER = 22, 12, 7.25
"""Sizes in the drawing, in pixels: a cell, a letter's height and a letter's width in the usual monospaced fonts."""

INK, PAPER, TEXT = "#08519c", "#eef2f7", "#1b1f24"

NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold, escaped or not (XML 1.0, section 2.2)."""


def attention_svg(
    attention_map: torch.Tensor, tokens: Sequence[str], *, key_tokens: Sequence[str] | None = None
) -> str:
    """Draw one map, a row for each query and a column for each key, as SVG that a README can show.

    Args:
        attention_map: Weights [T, S] of one text, layer and head.
        tokens: A string for every query, T.
        key_tokens: A string for every key, S; None: the keys are the queries' tokens.

    Returns:
        An SVG document.

    Raises:
        ValueError: If the tokens are not as many as the map's rows and columns.
    """
    key_tokens = tokens if key_tokens is None else key_tokens
    _refuse_other_counts(attention_map, tokens, key_tokens)
    left, top = (12 + max(map(_width, names), default=0.0) for names in (tokens, key_tokens))
    width, height = left + CELL * len(key_tokens) + 6, top + CELL * len(tokens) + 6
    middles = [CELL * (index + 0.5) for index in range(max(len(tokens), len(key_tokens)))]
    rows = [
        f'<text x="{left - 6:g}" y="{top + middle + 4:g}" text-anchor="end">{_in_xml(token)}</text>'
        for middle, token in zip(middles, tokens, strict=False)
    ]
    columns = [
        f'<text transform="translate({left + middle + 4:g} {top - 6:g}) rotate(-90)">{_in_xml(token)}</text>'
        for middle, token in zip(middles, key_tokens, strict=False)
    ]
    cells = [
        f'<rect x="{left + CELL * column:g}" y="{top + CELL * row:g}" width="{CELL}" height="{CELL}" '
        f'fill-opacity="{weight**0.5:.2f}"/>'
        for row, weights in enumerate(attention_map.tolist())
        for column, weight in enumerate(weights)
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img">',
        "<title>Attention: each row is a token, and the dark cells are those it looks at</title>",
        f'<rect width="{width:g}" height="{height:g}" rx="6" fill="#ffffff"/>',
        f'<rect x="{left:g}" y="{top:g}" width="{CELL * len(key_tokens)}" height="{CELL * len(tokens)}" '
        f'fill="{PAPER}"/>',
        f'<g fill="{INK}" stroke="#ffffff">',
        *cells,
        f'</g><g fill="{TEXT}" font-size="{FONT_SIZE}" font-family="ui-monospace, Menlo, Consolas, monospace">',
        *rows,
        *columns,
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


def _refuse_other_counts(attention_map: torch.Tensor, tokens: Sequence[str], key_tokens: Sequence[str]) -> None:
    if (len(tokens), len(key_tokens)) != tuple(attention_map.shape):
        raise ValueError(
            f"tokens ({len(tokens)} for rows, {len(key_tokens)} for columns) must be as many as the map has, "
            f"{list(attention_map.shape)}; give a string for each."
        )


def _width(token: str) -> float:
    """Estimate a token's width in pixels; East Asian characters are as wide as two letters."""
    return CHARACTER * sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in token)


def _in_xml(token: str) -> str:
    return html.escape(NOT_IN_XML.sub("\ufffd", token), quote=False)
