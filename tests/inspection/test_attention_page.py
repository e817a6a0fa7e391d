"""The page holds the model's weights to the quantisation, shows them in a real browser, and lets nothing in or out."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
import torch

from hf_minilm.inspection import attention_page, read_text
from hf_minilm.inspection.attention_page import PAGE, all_maps, quantised
from hf_minilm.inspection.reading import Looks, Reading
from hf_minilm.inspection.rollout import rollout
from hf_minilm.inspection.token_labels import TokenLabel

TEXT = "La niña comió allí."
HOSTILE = ["</script><script>window.broken=1</script>", "<img src=x onerror=window.broken=1>", '"\\', "'", "&lt;"]
HOSTILE += ["\u2028", "{{policy}}", "<!--<script>", "\ud800", "日本", "ñ"]


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


def made_up(names, *, model="a model", layers=2, heads=2) -> Reading:
    """A reading of random weights, and tokens of any name."""
    size = len(names)
    weights = torch.randn(layers, heads, size, size, generator=torch.Generator().manual_seed(4)).softmax(-1)
    tokens = tuple(TokenLabel(name) for name in names)
    return Reading(
        model, (("kind", "encoder"),), (Looks("self", "encoder", weights, rollout(weights), tokens, tokens),)
    )


def data_of(page: str):
    return json.loads(Page(page).scripts[0])


def weights_in(look):
    """The weights that a page holds, [layers, heads + 2, queries, keys]."""
    held = torch.tensor(list(base64.b64decode(look["weights"])), dtype=torch.float64)
    shape = (look["layers"], look["heads"] + 2, len(look["queries"]), len(look["keys"]))
    return (held / 255).square().view(shape)


def assert_within_the_quantisation(held, weights):
    # Half a step of the square root, and the square of it, to either side.
    assert ((held.double().sqrt() - weights.double().sqrt()).abs() <= 0.5 / 255 + 1e-6).logical_or(held < 2e-5).all()
    assert (held - weights).abs().max() <= 1 / 255


def test_the_page_holds_every_weight_to_the_quantisation_and_every_token(one_stack):
    reading = read_text(one_stack.model, one_stack.tokenizer, TEXT)
    (look,) = data_of(attention_page(reading))["looks"]
    held = weights_in(look)
    assert_within_the_quantisation(held, all_maps(reading.looks[0]))
    assert look["queries"] == [[token.text, int(token.is_special)] for token in reading.looks[0].queries]
    assert [name for name, special in look["keys"] if special] in (["[CLS]", "[SEP]"], ["<s>"])


def test_only_a_weight_of_zero_is_zero():
    weights = torch.tensor([0.0, 1e-30, 1e-6, 0.5, 1.0])
    assert quantised(weights).tolist() == [0, 1, 1, 180, 255]


def test_no_token_and_no_name_becomes_a_part_of_the_page():
    plain, odd = (Page(attention_page(made_up(names, model=names[0]))) for names in (["a"] * len(HOSTILE), HOSTILE))
    assert odd.elements == plain.elements
    assert [len(page.scripts) for page in (plain, odd)] == [2, 2]
    data = json.loads(odd.scripts[0])
    assert [name for name, _ in data["looks"][0]["queries"]] == HOSTILE
    assert data["model"] == HOSTILE[0]


def test_the_page_names_no_address_and_its_policy_allows_its_own_script_and_style_only():
    text = attention_page(made_up(["a"] * 3))
    assert re.findall(r"https?:(?!//www\.w3\.org/2000/svg)|\bsrc=|\bhref=|@import|url\(|fetch\(|XMLHttp", text) == []
    policy = next(attrs["content"] for tag, attrs in Page(text).elements if attrs.get("http-equiv"))
    hashes = [
        base64.b64encode(hashlib.sha256(re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1].encode()).digest())
        for tag in ("script", "style")
    ]
    script, style = (value.decode() for value in hashes)
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; base-uri 'none'; "
        "form-action 'none'"
    )


def test_the_largest_page_is_below_nine_megabytes():
    # Twelve layers of twelve heads, with as many tokens as may be shown.
    assert len(attention_page(made_up(["token"] * 188, layers=12, heads=12))) < 9_000_000


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"layer": 2}, r"^layer \(2\) must be from -2 to 1, as the encoder has 2; choose one\.$"),
        ({"head": -3}, r"^head \(-3\) must be from -2 to 1, as there are 2, or mean or rollout; choose one\.$"),
        ({"head": "all"}, r"^head \(all\) must be from -2 to 1, as there are 2, or mean or rollout; choose one\.$"),
    ],
)
def test_a_layer_or_head_that_is_not_there_is_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        attention_page(made_up(["a", "b"]), **chosen)


# In the browser.

CHOSEN = "document.getElementById('chosen').textContent"
PERCENTS = "[...document.querySelectorAll('#{} .percent')].map((e) => e.textContent)"
COUNT = "document.querySelectorAll('{}').length"


def open_page(browser, tmp_path, reading, **options):
    chosen = {name: options.pop(name) for name in ("layer", "head") if name in options}
    path = tmp_path / "page.html"
    path.write_text(attention_page(reading, **chosen), encoding="utf-8")
    browser.open(path, **options)
    return path


def shown(percents):
    """The weights that percents stand for, where "<0.1 %" is about nothing and "" is exactly nothing."""
    numbers = [text.removesuffix("\u202f%").replace("<0.1", "0.03") for text in percents]
    return torch.tensor([float(number or 0) / 100 for number in numbers])


def assert_shown(browser, weights, column):
    percents = browser.evaluate(PERCENTS.format(column))
    assert [text == "" for text in percents] == (weights == 0).tolist()
    # The quantisation, and the rounding to a whole percent or a tenth of one.
    torch.testing.assert_close(shown(percents), weights, atol=0.5 / 100 + 1 / 255, rtol=0)


def test_the_script_runs_without_complaint_and_asks_for_nothing_but_the_page(browser, tmp_path, one_stack):
    path = open_page(browser, tmp_path, read_text(one_stack.model, one_stack.tokenizer, TEXT, name="mine"))
    tokens = len(one_stack.tokenizer(TEXT)["input_ids"])
    assert browser.evaluate(COUNT.format("#queries li")) == browser.evaluate(COUNT.format("#keys-column li")) == tokens
    assert browser.evaluate(COUNT.format("#overview button")) == 2 * (4 + 2)
    assert browser.evaluate(CHOSEN) == "Layer 1, head 0"
    assert browser.evaluate("document.title") == "Where does each token look? mine"
    kind = "Masked self-attention" if one_stack.model.config.is_causal else "Self-attention"
    assert browser.evaluate("document.getElementById('kind').textContent") == kind
    formulas = "[...document.querySelectorAll('#formula math')].filter((e) => e.checkVisibility()).length"
    assert browser.evaluate(formulas) == 1
    biased = "[...document.querySelectorAll('[data-bias]')].some((e) => e.checkVisibility())"
    assert browser.evaluate(biased) == (one_stack.model.config.position_embedding == "alibi")
    assert browser.complaints() == []
    assert browser.requested() == [path.as_uri()]


def test_arrow_keys_go_through_layers_and_heads_and_stop_at_the_edges(browser, tmp_path, one_stack):
    open_page(browser, tmp_path, read_text(one_stack.model, one_stack.tokenizer, TEXT), layer=0)
    for key, title in (
        ("ArrowUp", "Layer 0, head 0"),
        ("ArrowLeft", "Layer 0, head 0"),
        ("ArrowDown", "Layer 1, head 0"),
        ("ArrowDown", "Layer 1, head 0"),
        ("ArrowRight", "Layer 1, head 1"),
        ("ArrowRight", "Layer 1, head 2"),
        ("ArrowRight", "Layer 1, head 3"),
        ("ArrowRight", "Layer 1, mean of the heads"),
        ("ArrowRight", "Rollout up to layer 1"),
        ("ArrowRight", "Rollout up to layer 1"),
        ("ArrowUp", "Rollout up to layer 0"),
        ("ArrowLeft", "Layer 0, mean of the heads"),
    ):
        browser.press(key)
        assert browser.evaluate(CHOSEN) == title
        assert browser.evaluate(COUNT.format("#overview [aria-pressed=true]")) == 1
    assert browser.complaints() == []


def test_a_token_that_is_stepped_to_shows_the_weights_of_its_row_and_column(browser, tmp_path, one_stack):
    reading = read_text(one_stack.model, one_stack.tokenizer, TEXT)
    maps = all_maps(reading.looks[0])
    open_page(browser, tmp_path, reading, layer=0)
    for _ in range(3):
        browser.press("ArrowDown", shift=True)
    for column in range(maps.shape[1]):
        assert_shown(browser, maps[0, column, 2], "keys-column")
        assert_shown(browser, maps[0, column, :, 2], "queries")
        browser.press("ArrowRight")
    browser.press("Escape")
    assert browser.evaluate(PERCENTS.format("queries")) == [""] * len(reading.looks[0].queries)
    assert browser.complaints() == []


def test_pointing_shows_a_token_and_a_click_keeps_it(browser, tmp_path, encoder):
    reading = read_text(encoder.model, encoder.tokenizer, TEXT)
    weights = reading.looks[0].weights[-1, 0]
    open_page(browser, tmp_path, reading)
    browser.point("document.querySelectorAll('#queries button')[2]")
    assert_shown(browser, weights[2], "keys-column")
    browser.point("document.querySelectorAll('#queries button')[4]", click=True)
    browser.point("document.querySelector('h1')")
    assert_shown(browser, weights[4], "keys-column")
    assert_shown(browser, weights[:, 4], "queries")
    said = browser.evaluate("document.getElementById('said').textContent")
    most = reading.looks[0].keys[int(weights[4].argmax())].text
    assert f"“{reading.looks[0].queries[4].text}” looks at “{most}” " in said
    browser.point("document.querySelectorAll('#queries button')[4]", click=True)
    browser.point("document.querySelector('h1')")
    assert browser.evaluate(COUNT.format(".pinned")) == 0
    assert browser.complaints() == []


def test_a_cell_of_the_matrix_says_its_pair_and_the_matrix_stays_where_it_is(browser, tmp_path, one_stack):
    look = read_text(one_stack.model, one_stack.tokenizer, TEXT).looks[0]
    open_page(browser, tmp_path, read_text(one_stack.model, one_stack.tokenizer, TEXT))
    place = "document.getElementById('map').getBoundingClientRect().toJSON()"
    browser.evaluate("document.getElementById('map').scrollIntoView({block: 'center'})")
    before = browser.evaluate(place)
    pairs = set()
    for share in (0.35, 0.5, 0.7, 0.9):
        x, y = before["x"] + share * before["width"], before["y"] + 0.8 * before["height"]
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        said = browser.evaluate("document.getElementById('cell').textContent")
        query, key, value = re.fullmatch(r".* → .* \(i = (\d+), j = (\d+)\): (.*)", said).groups()
        weight = look.weights[-1, 0, int(query), int(key)]
        if value == "may not look":
            assert weight == 0
        else:
            torch.testing.assert_close(shown([value])[0], weight, atol=0.5 / 100 + 1 / 255, rtol=0)
        assert browser.evaluate(place) == before
        pairs.add((query, key))
    assert len(pairs) == 4


def test_source_and_target_are_chosen_apart_in_cross_attention_and_kinds_are_buttons(browser, tmp_path, two_stacks):
    reading = read_text(two_stacks.model, two_stacks.tokenizer, TEXT, second="The keys are old.")
    open_page(browser, tmp_path, reading)
    cross = reading.looks[2]
    assert browser.evaluate("document.getElementById('kind').textContent") == "Cross-attention in the decoder"
    browser.point("document.querySelectorAll('#queries button')[1]", click=True)
    assert_shown(browser, cross.weights[-1, 0, 1], "keys-column")
    assert set(browser.evaluate(PERCENTS.format("queries"))) == {""}
    browser.point("document.querySelectorAll('#keys-column button')[3]", click=True)
    assert_shown(browser, cross.weights[-1, 0, :, 3], "queries")
    assert set(browser.evaluate(PERCENTS.format("keys-column"))) == {""}
    for index, name in ((1, "Masked self-attention in the decoder"), (0, "Self-attention in the encoder")):
        browser.point(f"document.querySelectorAll('#kinds button')[{index}]", click=True)
        assert browser.evaluate("document.getElementById('kind').textContent") == name
        rows = browser.evaluate(COUNT.format("#queries li"))
        assert rows == len(reading.looks[index].queries)
        assert browser.evaluate(COUNT.format("#overview tbody tr")) == len(reading.looks[index].weights)
    assert browser.complaints() == []


def test_hostile_tokens_are_shown_as_they_are_and_do_nothing(browser, tmp_path):
    path = open_page(browser, tmp_path, made_up(HOSTILE, model=HOSTILE[0]))
    names = browser.evaluate("[...document.querySelectorAll('#queries bdi')].map((e) => e.textContent)")
    assert names == HOSTILE
    assert browser.evaluate("window.broken === undefined") is True
    assert browser.evaluate(COUNT.format("img")) == 0
    assert browser.requested() == [path.as_uri()]
    assert browser.complaints() == []


def test_the_policy_stops_a_script_a_picture_and_a_request_that_came_in_all_the_same(browser, tmp_path):
    path = tmp_path / "page.html"
    injected = '<script>window.broken = 1</script><img src="http://127.0.0.1:9/x.png">'
    path.write_text(attention_page(made_up(["a", "b"])).replace("<main>", "<main>" + injected), encoding="utf-8")
    browser.open(path)
    answer = "fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.name)"
    assert browser.evaluate(answer) == "TypeError"
    assert browser.evaluate("window.broken === undefined") is True
    said = " ".join(str(complaint) for complaint in browser.complaints())
    assert said.count("Content Security Policy") >= 3


@pytest.mark.parametrize(("width", "height"), [(360, 740), (1024, 768), (1920, 1080)])
def test_nothing_is_wider_than_the_screen(browser, tmp_path, two_stacks, width, height):
    open_page(browser, tmp_path, read_text(two_stacks.model, two_stacks.tokenizer, TEXT), width=width, height=height)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


CONTRAST = """(() => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const channels = [1, 3, 5].map((at) => parseInt(style.getPropertyValue(name).trim().slice(at, at + 2), 16) / 255);
    const [red, green, blue] = channels.map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const pairs = [];
  for (const text of ["--ink", "--soft", "--out", "--in"]) for (const ground of ["--paper", "--panel"]) {
    const [low, high] = [light(text), light(ground)].sort((a, b) => a - b);
    pairs.push([text, ground, (high + 0.05) / (low + 0.05)]);
  }
  return pairs;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_a_contrast_of_4_5_by_day_and_by_night(browser, tmp_path, dark):
    """WCAG 2.2, success criterion 1.4.3."""
    open_page(browser, tmp_path, made_up(["a", "b"]), dark=dark)
    assert [pair for pair in browser.evaluate(CONTRAST) if pair[2] < 4.5] == []
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 200) is dark


def test_every_button_and_picture_has_a_name(browser, tmp_path, two_stacks):
    open_page(browser, tmp_path, read_text(two_stacks.model, two_stacks.tokenizer, TEXT))
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = [
        node for node in nodes if not node["ignored"] and node["role"]["value"] in ("button", "image", "img", "group")
    ]
    assert len(named) > 40
    assert [node for node in named if not node["name"]["value"]] == []


def test_the_template_is_a_part_of_the_package():
    assert PAGE.is_file()
