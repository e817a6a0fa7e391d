"""The page and the drawing hold the weights and tokens that they were given, and fetch nothing."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
import torch

from hf_minilm.inspection import attention_html, attention_svg

TOKENS = ["[CLS]", "</script><b>", "R&D", '"ñ"', "犬"]
SVG = "{http://www.w3.org/2000/svg}"


def draw_maps(layers: int, heads: int, queries: int, keys: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(4)
    return tuple(torch.randn(1, heads, queries, keys, generator=generator).softmax(-1) for _ in range(layers))


class Page(HTMLParser):
    """Elements in order, and the text of every script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.scripts, self.inside = [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)


def test_the_page_holds_every_weight_to_half_a_thousandth_and_every_token():
    maps = draw_maps(3, 2, 5, 5)
    page = Page(attention_html(maps, TOKENS))
    data = json.loads(page.scripts[0])
    assert data["queries"] == data["keys"] == TOKENS
    assert (data["layers"], data["heads"]) == ([0, 1, 2], [0, 1])
    held = torch.tensor(data["maps"]).view(3, 2, 5, 5) / 1000
    torch.testing.assert_close(held, torch.cat(maps), atol=5.01e-4, rtol=0)


def test_no_token_becomes_a_part_of_the_page():
    plain, odd = (Page(attention_html(draw_maps(1, 1, 5, 5), names)) for names in (["a"] * 5, TOKENS))
    assert odd.elements == plain.elements
    assert len(odd.scripts) == 2
    assert "<b>" not in attention_html(draw_maps(1, 1, 5, 5), TOKENS)


def test_the_page_fetches_nothing_and_forbids_itself_to():
    text = attention_html(draw_maps(2, 2, 5, 5), ["a"] * 5)
    assert re.findall(r"https?:|\bsrc=|\bhref=|@import|url\(|fetch\(|XMLHttpRequest|import\(", text) == []
    assert "default-src 'none'" in dict(Page(text).elements[4][1])["content"]


def test_layers_and_heads_may_have_their_own_numbers_and_keys_their_own_tokens():
    text = attention_html(
        draw_maps(2, 3, 4, 6), list("abcd"), key_tokens=list("uvwxyz"), layers=[5, 7], heads=[0, 3, 2]
    )
    data = json.loads(Page(text).scripts[0])
    assert (data["layers"], data["heads"]) == ([5, 7], [0, 3, 2])
    assert ("".join(data["queries"]), "".join(data["keys"])) == ("abcd", "uvwxyz")


def test_twelve_layers_of_twelve_heads_over_forty_tokens_are_less_than_a_megabyte():
    assert len(attention_html(draw_maps(12, 12, 40, 40), ["token"] * 40)) < 1_000_000


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


@pytest.mark.parametrize(
    ("maps", "arguments", "message"),
    [
        ((), {}, r"^maps \(\[\]\) must have the shape \[1, heads, queries, keys\]; give those of one text\.$"),
        ((torch.ones(2, 1, 3, 3),), {}, r"^maps \(\[\[2, 1, 3, 3\]\]\) must have the shape \[1, "),
        (
            (torch.ones(1, 1, 3, 4),),
            {},
            r"^tokens \(3 for rows, 3 for columns\) must be as many as the map has, \[3, 4\]",
        ),
        (
            (torch.ones(1, 2, 3, 3),),
            {"heads": [1]},
            r"^layers and heads \(1 and 1\) must be as many as the maps' \(1 and 2\)",
        ),
    ],
)
def test_maps_that_do_not_fit_are_refused(maps, arguments, message):
    with pytest.raises(ValueError, match=message):
        attention_html(maps, ["a", "b", "c"], **arguments)


def test_a_drawing_of_other_tokens_than_the_maps_is_refused():
    with pytest.raises(ValueError, match=r"^tokens \(2 for rows, 2 for columns\) must be as many as the map has"):
        attention_svg(torch.ones(2, 3), ["a", "b"])
