"""Exact conversion between our models and transformers' own architectures, in both directions, with a proof."""

from .convert import Converted, from_native, to_native
from .obstacles import Obstacle, expressible, expressible_line
from .registry import ARCHITECTURES
from .saving import refuse_missing_folder, refuse_used_folder, save

__all__ = [
    "ARCHITECTURES",
    "Converted",
    "Obstacle",
    "expressible",
    "expressible_line",
    "from_native",
    "refuse_missing_folder",
    "refuse_used_folder",
    "save",
    "to_native",
]
