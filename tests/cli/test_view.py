"""`hf-minilm view` writes a page and a picture of a saved model, and a mistake is one line."""

import base64
import json
import re
import shutil

import pytest
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from hf_minilm import MiniLMConfig, MiniLMForCausalLM
from hf_minilm.cli.main import main
from hf_minilm.data.document import Document
from hf_minilm.data.tokenizer import train_tokenizer

TEXT = "La niña ve el <b>."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mine"
    tokenizer = train_tokenizer([Document((TEXT,), source="here")] * 3, kind="wordpiece", vocab_size="auto")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = MiniLMConfig(vocab_size=len(tokenizer), initializer_range=0.3, **sizes)
    MiniLMForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def view(capsys, *words):
    code = main(["view", *map(str, words)])
    return code, *capsys.readouterr()


def test_the_page_and_the_picture_are_of_the_weights_that_eager_attention_returns(folder, tmp_path, capsys):
    page, picture = tmp_path / "page.html", tmp_path / "picture.svg"
    code, printed, errors = view(capsys, folder, TEXT, "--output", page, "--picture", picture, "--head", "mean")
    assert (code, errors) == (0, "")
    inputs = AutoTokenizer.from_pretrained(folder)(TEXT, return_tensors="pt")
    model = AutoModel.from_pretrained(folder, attn_implementation="eager")
    expected = torch.cat(model(**inputs, output_attentions=True).attentions)
    length = inputs["input_ids"].shape[1]
    assert printed.splitlines() == [
        f"decoder, masked: 2 layers x 4 heads x {length} x {length} tokens",
        f"{page}: {page.stat().st_size / 1000:,.0f} kB; open it in a browser",
        str(picture),
    ]
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"))[1])
    held = torch.tensor(list(base64.b64decode(data["looks"][0]["weights"]))).view(2, 6, length, length)[:, :4]
    torch.testing.assert_close(held / 255, expected.sqrt(), atol=0.51 / 255 + 4e-3, rtol=0)
    assert data["start"] == [[1, 4]]
    assert "<svg" in picture.read_text(encoding="utf-8")


def test_transformers_says_as_much_afterwards_as_before(folder, tmp_path, capsys):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    view(capsys, folder, TEXT, "--output", tmp_path / "page.html")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_model_without_its_tokenizer_is_one_line(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "alone", ignore=shutil.ignore_patterns("tokenizer*"))
    code, printed, errors = view(capsys, tmp_path / "alone", TEXT)
    assert (code, printed) == (2, "")
    assert re.fullmatch(r"hf-minilm: tokenizer of the model \(.*alone\) must lie beside it; .*\n", errors)


def test_the_page_does_not_say_where_on_this_machine_the_model_lies(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    view(capsys, folder, TEXT, "--output", page)
    text = page.read_text(encoding="utf-8")
    assert '"model":"' + "/".join(folder.parts[-2:]) + '"' in text
    assert str(folder.parent) not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{folder}/absent", TEXT], "absent"),
        (["{folder}", TEXT, "--layer", "7"], r"layer \(7\) must be from -2 to 1"),
        (["{folder}", TEXT, "--head", "every"], r"head \(every\) must be from -4 to 3"),
        (["{folder}", TEXT, "--second", "a"], r"second text \(given\) must be for an encoder"),
        (["{folder}", TEXT * 200], r"text \(\d+ tokens\) must have 1 to 256 tokens"),
        (["{folder}", TEXT, "--picture", "{folder}/p.pdf"], r"picture \(.*p\.pdf\) must end in \.png or \.svg"),
        (["{folder}", TEXT, "--output", "{folder}/absent/page.html"], r"absent/page\.html"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(folder, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    code, printed, errors = view(capsys, *(word.format(folder=folder) for word in words))
    assert (code, printed) == (2, "")
    assert re.fullmatch(rf"hf-minilm: .*{message}.*\n", errors)
    assert list(tmp_path.iterdir()) == []
