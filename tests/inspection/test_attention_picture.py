"""The picture names every token as it is written, and is small enough for a model card."""

import struct
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from hf_minilm.inspection import read_text
from hf_minilm.inspection.attention_picture import draw_attention
from hf_minilm.inspection.reading import Looks, Reading
from hf_minilm.inspection.rollout import rollout
from hf_minilm.inspection.token_labels import TokenLabel

TEXT = "La niña comió allí."
SVG = "{http://www.w3.org/2000/svg}"


def words_in(path):
    return [text.text for text in ElementTree.parse(path).iter(f"{SVG}text")]


def test_the_picture_of_one_stack_has_its_tokens_its_percents_and_all_heads(one_stack, tmp_path):
    reading = read_text(one_stack.model, one_stack.tokenizer, TEXT, name="mine")
    draw_attention(reading, tmp_path / "p.svg", layer=0, head=1)
    words = words_in(tmp_path / "p.svg")
    names = [token.text for token in reading.looks[0].queries]
    assert [word for word in words if word in names and not word.isdigit()] == names * 2
    assert {"mine", "layer 0, head 1, percent", "mean", "rollout"} <= set(words)
    percents = [
        f"{100 * weight:.0f}" for row in reading.looks[0].weights[0, 1].tolist() for weight in row if weight >= 0.01
    ]
    assert "\n".join(percents) in "\n".join(words)


def test_the_picture_of_two_stacks_has_all_three_kinds(two_stacks, tmp_path):
    draw_attention(read_text(two_stacks.model, two_stacks.tokenizer, TEXT), tmp_path / "p.svg", head="mean")
    titles = [word.split(":")[0] for word in words_in(tmp_path / "p.svg") if ": " in word]
    assert titles == ["Self-attention", "Masked self-attention", "Cross-attention"]


@pytest.mark.parametrize("head", ["mean", "rollout"])
def test_the_mean_and_the_rollout_can_be_drawn_large(one_stack, tmp_path, head):
    draw_attention(read_text(one_stack.model, one_stack.tokenizer, TEXT), tmp_path / "p.svg", layer=0, head=head)
    titles = {"mean": "layer 0, mean of the heads, percent", "rollout": "rollout up to layer 0, percent"}
    assert titles[head] in words_in(tmp_path / "p.svg")


def made_up(names):
    weights = torch.full((1, 1, len(names), len(names)), 1 / len(names))
    tokens = tuple(TokenLabel(name) for name in names)
    return Reading("$a_1$ <b>", (), (Looks("self", "encoder", weights, rollout(weights), tokens, tokens),))


def test_tokens_are_never_formulas_or_markup_and_a_missing_letter_is_no_warning(tmp_path):
    names = ["$x^2$", "$", "<b>&", "\\frac", "犬", "_a", "</svg>"]
    for ending in ("svg", "png"):
        draw_attention(made_up(names), tmp_path / f"p.{ending}")
    words = words_in(tmp_path / "p.svg")
    assert [word for word in words if word in names] == names * 2
    assert "$a_1$ <b>" in words


def test_equal_readings_give_equal_files_in_which_nothing_is_fetched(tmp_path):
    for name in ("one.svg", "other.svg"):
        draw_attention(made_up(["a", "b"]), tmp_path / name)
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "other.svg").read_text(encoding="utf-8")
    assert "<script" not in text
    root = ElementTree.fromstring(text)
    links = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)


def test_a_png_of_a_sentence_is_below_150_kilobytes_and_wide_enough_to_read(encoder, tmp_path):
    draw_attention(read_text(encoder.model, encoder.tokenizer, TEXT), tmp_path / "p.png")
    content = (tmp_path / "p.png").read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert len(content) < 150_000
    assert 800 < width < 3000
    assert 400 < height < 3000


def test_a_long_text_is_drawn_without_numbers_within_bounds(tmp_path):
    draw_attention(made_up([f"t{number}" for number in range(60)]), tmp_path / "p.png")
    width, height = struct.unpack(">II", (tmp_path / "p.png").read_bytes()[16:24])
    assert max(width, height) < 3500


@pytest.mark.parametrize("name", ["p.pdf", "p", "p.html"])
def test_another_format_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=rf"^picture \(.*{name}\) must end in \.png or \.svg; give another name\.$"):
        draw_attention(made_up(["a"]), tmp_path / name)
