"""A page in which one looks around in what a model looked at: one HTML file that fetches nothing.

The page holds each weight in one byte, the rounded square root of it times 255: so it is exact to a thousandth where
weights are small and to four where they are large, and the byte is at the same time its colour. Zero means that looking
is forbidden, as a weight that is allowed is never quite zero.

Tokens and names are data: they stand in one JSON block in which no character can end it, and are put on the page as
text. Should that fail, the browser still runs no script but the page's own, whose hash the page names, and opens no
connection (Content Security Policy Level 3, sections 6.1 and 8.2).

Shapes: L layers, H heads, T query positions, S key positions.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch

from .reading import Looks, Reading

PAGE = Path(__file__).with_name("attention_page.html")
"""The page, with `{{data}}` where the reading goes and `{{policy}}` where the policy goes."""

MEAN, ROLLOUT = "mean", "rollout"
"""What is shown beside the heads."""


def attention_page(reading: Reading, *, layer: int = -1, head: int | str = 0) -> str:
    """Make the page of a reading.

    Args:
        reading: What `read_text` gives.
        layer: The layer that is open at first, from 0, or negative from the last.
        head: The head likewise, or "mean" or "rollout".

    Returns:
        An HTML document.

    Raises:
        ValueError: If there is no such layer or head.
    """
    data = {
        "model": reading.model,
        "facts": reading.facts,
        "looks": [_as_data(look) for look in reading.looks],
        "start": [chosen_place(look, layer=layer, head=head) for look in reading.looks],
    }
    # Only `<` could end a script element; what is not ASCII is written as numbers, line separators among it.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page = PAGE.read_text(encoding="utf-8")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash_of('script', page)}",
            f"style-src {_hash_of('style', page)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return page.replace("{{policy}}", policy).replace("{{data}}", text)


def chosen_place(look: Looks, *, layer: int, head: int | str) -> tuple[int, int]:
    """Find a layer and a head among the maps, where the mean and the rollout stand after the heads.

    Raises:
        ValueError: If there is no such layer or head.
    """
    layers, heads = look.weights.shape[:2]
    if not -layers <= layer < layers:
        raise ValueError(
            f"layer ({layer}) must be from {-layers} to {layers - 1}, as the {look.stack} has {layers}; choose one."
        )
    if isinstance(head, str) or not -heads <= head < heads:
        if head not in (MEAN, ROLLOUT):
            raise ValueError(
                f"head ({head}) must be from {-heads} to {heads - 1}, as there are {heads}, or {MEAN} or {ROLLOUT}; "
                "choose one."
            )
        return layer % layers, heads + (MEAN, ROLLOUT).index(head)
    return layer % layers, head % heads


def all_maps(look: Looks) -> torch.Tensor:
    """Give the maps of the heads, their mean and the rollout, [L, H + 2, T, S]."""
    mean = look.weights.mean(dim=1, keepdim=True)
    return torch.cat((look.weights, mean, look.rollout[:, None]), dim=1)


def quantised(weights: torch.Tensor) -> torch.Tensor:
    """Round weights from 0 to 1 to bytes; only zero becomes zero."""
    rounded = (255 * weights.clamp(0, 1).sqrt()).round()
    return torch.where(weights > 0, rounded.clamp(min=1), rounded).to(torch.uint8)


def _as_data(look: Looks) -> dict[str, Any]:
    maps = quantised(all_maps(look))
    return {
        "kind": look.kind,
        "stack": look.stack,
        "layers": maps.shape[0],
        "heads": maps.shape[1] - 2,
        "bias": look.has_bias,
        "queries": [[token.text, int(token.is_special)] for token in look.queries],
        "keys": [[token.text, int(token.is_special)] for token in look.keys],
        "weights": base64.b64encode(maps.contiguous().numpy().tobytes()).decode("ascii"),
    }


def _hash_of(element: str, page: str) -> str:
    """Give the source expression that allows the page's own script or style, and no other."""
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
