"""The examples of the encoder-decoder: one translates and draws the alignment, one trains Marian beside it."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

from hf_minilm.training.pretrain import pretrain
from hf_minilm.training.recipe import load_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = {
    "model.overrides": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "data.world_documents": 60,
    "data.sequence_length": 96,
    "training.budget": "2s",
    "training.batch_rows": 4,
    "evaluation.translations": 2,
    "evaluation.rows": 4,
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the recipe that translates, small."""
    folder = tmp_path_factory.mktemp("translate")
    settings = {**SETTINGS, "output.folder": str(folder / "run"), "data.cache_folder": str(folder / "cache")}
    overrides = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    pretrain(load_recipe(EXAMPLES / "recipes" / "translate.yaml", overrides))
    return folder / "run"


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a script; its exit code, and what it printed on both streams."""

    def run(name: str, *words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        code = 0
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    verbosity = logging.get_verbosity()
    yield run
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


def test_a_text_is_translated_as_the_model_translates_it_and_its_alignment_drawn(
    run_folder: Path, tmp_path: Path, run_script
) -> None:
    text, picture = "Emma espera a Pedro en el río.", tmp_path / "alignment.svg"
    code, printed, errors = run_script("translate.py", run_folder / "model", text, "--picture", picture)
    assert (code, errors) == (0, "")
    tokenizer = AutoTokenizer.from_pretrained(run_folder / "model")
    model = AutoModelForSeq2SeqLM.from_pretrained(run_folder / "model", attn_implementation="eager").eval()
    inputs = tokenizer(text, return_tensors="pt")
    written = model.generate(**inputs, num_beams=4, do_sample=False)
    assert printed.rstrip("\n") == tokenizer.decode(written[0], skip_special_tokens=True)
    weights = model(**inputs, decoder_input_ids=written[:, :-1], output_attentions=True).cross_attentions[-1]
    expected = weights[0].mean(dim=0).sqrt().flatten()
    shades = re.findall(r'fill-opacity="([\d.]+)"', picture.read_text(encoding="utf-8"))
    drawn = torch.tensor([float(shade) for shade in shades])
    assert (drawn - expected).abs().max() < 0.006  # two decimals


def test_a_folder_that_is_absent_is_one_line_and_exit_code_2(tmp_path: Path, run_script) -> None:
    code, printed, errors = run_script("translate.py", tmp_path / "nowhere", "Hola.")
    assert (code, printed) == (2, "")
    assert errors.startswith("translate: ")
    assert errors.count("\n") == 1


def test_a_run_that_is_absent_is_one_line_and_exit_code_2(tmp_path: Path, run_script) -> None:
    code, printed, errors = run_script("compare_with_marian.py", tmp_path / "nowhere")
    assert (code, printed) == (2, "")
    assert errors.startswith("compare_with_marian: ")
    assert errors.count("\n") == 1


def test_marian_is_trained_for_as_long_and_both_are_scored_on_the_same_sources(run_folder: Path, run_script) -> None:
    code, printed, _ = run_script("compare_with_marian.py", run_folder, "--translations", "3")
    assert code == 0
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table[2:]] == ["hf_minilm", "Marian"]
    parameters = [int(line.split("|")[2].replace(",", "")) for line in table[2:]]
    # Marian has biases, and tables of fixed sinusoids that it counts.
    assert 0.9 < parameters[0] / (parameters[1] - 2 * 512 * 32) < 1.1
    assert re.fullmatch(r"\d+\.\d / \d+\.\d / \d+\.\d%", table[2].split("|")[3].strip())
