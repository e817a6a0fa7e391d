"""`hf-minilm evaluate` from the command line: a whole small run, and a user's mistakes."""

import json

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from hf_minilm import MiniLMConfig, MiniLMForMaskedLM, MiniLMForSequenceClassification
from hf_minilm.cli.main import main
from hf_minilm.data.tokenizer import train_tokenizer
from hf_minilm.data.world import World


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(World(("en",)).documents(100), kind="wordpiece", vocab_size=200)


@pytest.fixture
def save(tmp_path, tokenizer):
    def save(model):
        model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return save


def ours(model_class, tokenizer, **labels):
    torch.manual_seed(0)
    return model_class(MiniLMConfig.preset("modern", "tiny", vocab_size=len(tokenizer), pad_token_id=0, **labels))


def refusal(capsys, *words):
    assert main(["evaluate", *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "native"])
def test_a_model_in_a_folder_is_measured_and_the_figures_lie_beside_it(tmp_path, save, tokenizer, capsys, is_ours):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    bert = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes))
    folder = save(ours(MiniLMForMaskedLM, tokenizer) if is_ours else bert)
    (tmp_path / "agreement.txt").write_text("the keys is old .\nthe keys are old .\n", encoding="utf-8")
    assert main(["evaluate", folder, f"pairs:{tmp_path}/agreement.txt", "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    assert "pairs:agreement.txt" in printed
    assert "macro_accuracy" in printed
    written = json.loads((tmp_path / "model" / "evaluation.json").read_text(encoding="utf-8"))
    assert written["results"]["pairs:agreement.txt"]["accuracy/agreement"]["n"] == 1
    assert written["command"] == "hf-minilm evaluate model pairs:agreement.txt --seed 5"
    assert written["seed"] == 5
    assert written["model"]["name"] == "model"
    assert str(tmp_path) not in json.dumps(written)


def test_a_classifier_is_measured_where_it_is_told_to_write(tmp_path, save, tokenizer):
    folder = save(ours(MiniLMForSequenceClassification, tokenizer, id2label={0: "no", 1: "yes"}))
    (tmp_path / "texts.csv").write_text("text,label\nthe key,yes\nthe dog,no\n", encoding="utf-8")
    output = tmp_path / "figures.json"
    assert main(["evaluate", folder, f"classification:{tmp_path}/texts.csv", f"--output={output}"]) == 0
    assert json.loads(output.read_text(encoding="utf-8"))["results"]["classification:texts.csv"]["accuracy"]["n"] == 2
    assert not (tmp_path / "model" / "evaluation.json").exists()


def test_what_is_replaced_is_said_before_it_is_and_only_if_it_held_another_suite(tmp_path, save, tokenizer, capsys):
    folder = save(ours(MiniLMForMaskedLM, tokenizer))
    command = ["evaluate", folder, f"pairs:{_pairs(tmp_path)}"]
    assert main(command) == main(command) == 0
    assert "will be replaced" not in capsys.readouterr().err
    assert main(["evaluate", folder, "probes:en", "--limit=2"]) == 0
    said = capsys.readouterr().err
    assert "evaluation.json holds pairs:agreement.txt and will be replaced" in said
    assert said.index("will be replaced") < said.index("measuring probes")
    written = json.loads((tmp_path / "model" / "evaluation.json").read_text(encoding="utf-8"))
    assert list(written["results"]) == ["probes:en"]


def test_mistakes_are_found_before_the_model_is_opened(tmp_path, capsys):
    line = refusal(capsys, "./nowhere", "probes", f"--output={tmp_path}/missing/figures.json")
    assert line.endswith("missing/figures.json) must be in a folder that exists; make it first.")
    line = refusal(capsys, "./nowhere", "probes", f"--output={tmp_path}")
    assert line.endswith(f"--output ({tmp_path}) must be a file, and is a folder; name one in it.")
    assert "--length (64) must be read by a suite" in refusal(capsys, "./nowhere", "probes", "--length=64")
    assert "give --length a larger number" in refusal(capsys, "./nowhere", "heldout:a.txt", "--length=0")
    assert "language (xx) must be one of en" in refusal(capsys, "./nowhere", "spans:a.json", "--language=xx")


def test_without_a_model_the_suites_are_listed(capsys):
    assert main(["evaluate", "--list"]) == 0
    assert "pairs:FILES" in capsys.readouterr().out


def test_an_unknown_suite_is_one_line_that_lists_them_before_the_model_is_opened(capsys):
    line = refusal(capsys, "nowhere", "blimp:x")
    assert "suite (blimp:x) must be one of heldout:TEXT" in line
    assert "pairs:FILES" in line


def test_a_folder_that_is_no_model_and_a_file_that_does_not_exist_are_named(tmp_path, save, tokenizer, capsys):
    assert "model (./nowhere) must be a folder that exists" in refusal(capsys, "./nowhere", "probes")
    folder = save(ours(MiniLMForMaskedLM, tokenizer))
    assert "missing.txt" in refusal(capsys, folder, "pairs:missing.txt")
    assert "scoring (causal) must be masked" in refusal(
        capsys, folder, f"pairs:{_pairs(tmp_path)}", "--scoring", "causal"
    )


def _pairs(folder):
    (folder / "agreement.txt").write_text("bad\ngood\n", encoding="utf-8")
    return folder / "agreement.txt"
