"""The drawing holds the weights and tokens that it was given, and fetches nothing."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from hf_minilm.inspection import attention_svg

TOKENS = ["[CLS]", "</script><b>", "R&D", '"ñ"', "犬"]
SVG = "{http://www.w3.org/2000/svg}"


def draw_maps(layers: int, heads: int, queries: int, keys: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(4)
    return tuple(torch.randn(1, heads, queries, keys, generator=generator).softmax(-1) for _ in range(layers))


def test_the_drawing_has_a_cell_for_every_weight_whose_opacity_is_its_square_root():
    attention_map = draw_maps(1, 1, 4, 6)[0][0, 0]
    root = ElementTree.fromstring(attention_svg(attention_map, list("abcd"), key_tokens=list("uvwxyz")))
    cells = root.findall(f"{SVG}g/{SVG}rect")
    opacities = torch.tensor([float(cell.get("fill-opacity")) for cell in cells]).view(4, 6)
    torch.testing.assert_close(opacities, attention_map.sqrt(), atol=5.01e-3, rtol=0)
    places = {(float(cell.get("x")), float(cell.get("y"))) for cell in cells}
    assert (len(places), len({x for x, _ in places})) == (24, 6)


def test_the_drawing_names_rows_then_columns_and_everything_is_inside_it():
    text = attention_svg(draw_maps(1, 1, 5, 5)[0][0, 0], TOKENS)
    root = ElementTree.fromstring(text)
    assert [label.text for label in root.iter(f"{SVG}text")] == TOKENS * 2
    for cell in root.iter(f"{SVG}rect"):
        assert float(cell.get("x", 0)) + float(cell.get("width")) <= float(root.get("width"))
        assert float(cell.get("y", 0)) + float(cell.get("height")) <= float(root.get("height"))
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)|href|<script|<style", text) == []


def test_a_character_that_no_drawing_may_hold_is_replaced():
    root = ElementTree.fromstring(attention_svg(torch.ones(1, 1), ["a\x00\x1b\ud800b"]))
    assert [label.text for label in root.iter(f"{SVG}text")] == ["a\ufffd\ufffd\ufffdb"] * 2


def test_longer_tokens_take_more_room():
    widths = [
        float(ElementTree.fromstring(attention_svg(torch.ones(1, 1), [token])).get("width"))
        for token in ("a", "abc", "犬犬犬")
    ]
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


def test_a_drawing_of_other_tokens_than_the_maps_is_refused():
    with pytest.raises(ValueError, match=r"^tokens \(2 for rows, 2 for columns\) must be as many as the map has"):
        attention_svg(torch.ones(2, 3), ["a", "b"])
