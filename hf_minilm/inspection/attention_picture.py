"""A picture of a reading for a model card or a slide: one head large, with its numbers, and all of them in small.

Shapes: T query positions, S key positions.
"""

from pathlib import Path
from typing import Any

import torch
from matplotlib.colors import LinearSegmentedColormap, PowerNorm

from .attention_page import MEAN, ROLLOUT, all_maps, chosen_place
from .picture_file import new_figure, refuse_other_formats, save_picture
from .reading import Looks, Reading
from .token_labels import TokenLabel

COLOURS = LinearSegmentedColormap.from_list("attention", ["#eef3fa", "#5b9bd5", "#08306b"])
INK, SOFT, CHOSEN, NEVER = "#17202b", "#4d5a6a", "#b3470c", "#c3cbd6"

KINDS = {
    "self": "Self-attention: every token may look at every token",
    "masked": "Masked self-attention: no token may look at a later one",
    "cross": "Cross-attention: what is written looks at the source",
}

ROOM_TO_EXPLAIN = 1.3  # inches
MOST_NUMBERS = 24  # tokens up to which cells bear their percent
CELL, LEAST_CELL, LARGEST = 0.42, 0.13, 12.0  # inches


def draw_attention(reading: Reading, path: Path, *, layer: int = -1, head: int | str = 0) -> None:
    """Draw a head of each kind of attention, and beside the only one all layers and heads.

    Args:
        reading: What `read_text` gives.
        path: Where the picture goes, .png or .svg.
        layer: The layer that is drawn large, from 0, or negative from the last.
        head: The head likewise, or "mean" or "rollout".

    Raises:
        ValueError: If there is no such layer or head, or the name ends otherwise.
    """
    refuse_other_formats(path)
    places = [chosen_place(look, layer=layer, head=head) for look in reading.looks]
    sizes = [_size(look) for look in reading.looks]
    overview = [3.6] if len(reading.looks) == 1 else []
    widths, height = [*(width for width, _ in sizes), *overview], max(height for _, height in sizes) + 0.3
    figure = new_figure(sum(widths), height)
    parts = figure.subfigures(1, len(widths), width_ratios=widths, squeeze=False)[0]
    for part, look, place in zip(parts, reading.looks, places, strict=False):
        _draw_map(part.subplots(), look, place)
    if overview:
        _draw_overview(parts[-1], reading.looks[0], places[0], height=height)
    figure.suptitle(reading.model, color=SOFT, fontsize=9, parse_math=False)
    save_picture(figure, path, dots_per_inch=150)


def _size(look: Looks) -> tuple[float, float]:
    """Give the width and height of a map with its tokens, in inches."""
    longest = max(len(look.queries), len(look.keys))
    cell = max(LEAST_CELL, min(CELL, LARGEST / longest))
    labels = [0.5 + 0.085 * max(len(token.text) for token in tokens) for tokens in (look.queries, look.keys)]
    return max(3.4, cell * len(look.keys) + labels[0]), cell * len(look.queries) + labels[1] + 0.6


def _draw_map(axes: Any, look: Looks, place: tuple[int, int]) -> None:
    weights = all_maps(look)[place]  # [T, S]
    _draw_cells(axes, weights)
    axes.set_title(f"{KINDS[look.kind]}\n{_title(look, place)}", color=INK, fontsize=10)
    size = 9 if max(weights.shape) <= MOST_NUMBERS else 6
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(look.keys)), _texts(look.keys), rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(len(look.queries)), _texts(look.queries), fontsize=size, parse_math=False)
    for labels, tokens in ((axes.get_xticklabels(), look.keys), (axes.get_yticklabels(), look.queries)):
        for label, token in zip(labels, tokens, strict=True):
            label.set(color=SOFT if token.is_special else INK, fontstyle="italic" if token.is_special else "normal")
    axes.tick_params(length=0)
    if max(weights.shape) > MOST_NUMBERS:
        return
    for query, row in enumerate(weights.tolist()):
        for key, weight in enumerate(row):
            if weight >= 0.01:
                colour = "white" if weight > 0.2 else INK
                axes.text(key, query, f"{100 * weight:.0f}", ha="center", va="center", color=colour, fontsize=7)


def _draw_cells(axes: Any, weights: torch.Tensor) -> None:
    """Colour by the square root of the weight, and hatch what may not be looked at."""
    axes.set_facecolor("white")
    image = torch.where(weights > 0, weights, float("nan"))
    axes.imshow(image.numpy(), cmap=COLOURS, norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="equal")
    axes.patch.set(hatch="/////", edgecolor=NEVER, linewidth=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_overview(part: Any, look: Looks, chosen: tuple[int, int], *, height: float) -> None:
    maps = all_maps(look)
    layers, columns = maps.shape[:2]
    needed = 0.6 + 3.4 * layers / columns * maps.shape[2] / maps.shape[3]
    if needed < height:
        # Rows would otherwise be spread over the height of the large map.
        part, below = part.subfigures(2, 1, height_ratios=[needed, height - needed])
        if height - needed > ROOM_TO_EXPLAIN:
            below.text(0.08, 0.95, _explanation(look, chosen), color=SOFT, fontsize=9, va="top", linespacing=1.6)
    names = [*map(str, range(columns - 2)), MEAN, ROLLOUT]
    for layer, row in enumerate(part.subplots(layers, columns, squeeze=False)):
        for column, axes in enumerate(row):
            _draw_cells(axes, maps[layer, column])
            axes.set(xticks=[], yticks=[])
            if layer == 0:
                axes.set_title(names[column], color=SOFT, fontsize=7)
            if (layer, column) == chosen:
                for spine in axes.spines.values():
                    spine.set(visible=True, color=CHOSEN, linewidth=2)
        row[0].set_ylabel(layer, rotation=0, ha="right", va="center", color=SOFT, fontsize=7)
    part.suptitle("Layers (rows) and heads", color=INK, fontsize=10)


def _explanation(look: Looks, place: tuple[int, int]) -> str:
    """Write the formula of what is drawn large, and how to read it."""
    over, bias = r"j \leq i" if look.kind == "masked" else "j", " + b_{ij}" if look.has_bias else ""
    beside = place[1] - look.weights.shape[1]
    formulas = {
        0: r"$\bar{\alpha}_{ij} = \frac{1}{H} \sum_h \alpha^h_{ij}$",
        1: r"$R_l = \frac{1}{2} (\bar{A}_l + I) R_{l-1}$, $R_0 = I$",
    }
    formula = rf"$\alpha_{{ij}} = \mathrm{{softmax}}_{{{over}}}\,(q_i \cdot k_j / \sqrt{{D}}{bias})$"
    lines = [
        formulas.get(beside, formula),
        "Row $i$: the token that looks.",
        "Column $j$: the token that is looked at.",
        "The darker, the more (square root).",
        *(["Hatched: may not look."] if look.kind == "masked" else []),
    ]
    return "\n".join(lines)


def _title(look: Looks, place: tuple[int, int]) -> str:
    layer, column = place
    heads = look.weights.shape[1]
    if column == heads:
        return f"layer {layer}, mean of the heads, percent"
    return f"layer {layer}, head {column}, percent" if column < heads else f"rollout up to layer {layer}, percent"


def _texts(tokens: tuple[TokenLabel, ...]) -> list[str]:
    return [token.text for token in tokens]
