"""A user's mistake costs one line and exit code 2, and damages nothing."""

import sys
from pathlib import Path

import pytest
import torch
from accelerate.utils import LoggerType
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hf_minilm.cli.main import main
from hf_minilm.training import launch

PARAGRAPH = "Una frase corta que sirve de texto. Otra frase le sigue y dice algo más.\n\n"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["pretrain", *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_missing_recipe_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing.yaml" in refusal(capsys, "missing.yaml")


def test_a_missing_corpus_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.txt" in refusal(capsys, "--set", "data.corpus=nowhere.txt")


def test_an_empty_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    assert "empty.txt" in refusal(capsys, "--set", "data.corpus=empty.txt")


def test_a_byte_that_is_not_utf8_is_named_with_its_offset_and_the_way_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"hola se\xf1or")
    line = refusal(capsys, "--set", "data.corpus=latin.txt")
    assert "latin.txt" in line
    assert "7" in line
    assert "--set data.encoding_errors=replace" in line


def test_the_way_on_after_a_bad_byte_works_in_the_same_folder(tmp_path: Path) -> None:
    text = "\n\n".join([PARAGRAPH] * 8).encode() + b"\n\nhola se\xf1or, buenas. Adi\xf3s."
    (tmp_path / "latin.txt").write_bytes(text)
    small = ["data.corpus=latin.txt", "model.size=tiny", "objective.next_sentence=false", "training.budget=1steps"]
    words = ["pretrain", *(f"--set={setting}" for setting in small)]
    assert main(words) == 2
    assert main([*words, "--set=data.encoding_errors=replace"]) == 0
    assert (tmp_path / "runs" / "latin" / "model" / "model.safetensors").exists()


def test_a_misspelt_key_is_answered_with_the_nearest_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("training:\n  bugdet: 5steps\n", encoding="utf-8")
    line = refusal(capsys, "recipe.yaml")
    assert "bugdet" in line
    assert "budget" in line.replace("bugdet", "")


def test_a_misspelt_model_field_is_answered_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hidden_size" in refusal(capsys, "--set", "model.overrides.hiden_size=64")


def test_a_vocabulary_that_the_corpus_cannot_fill_is_refused_with_both_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refusal(
        capsys, "--set", "tokenizer.vocab_size=15000", "--set", "data.world_documents=50", "--set", "model.size=tiny"
    )
    assert "tokenizer.vocab_size (15000) must not exceed what the corpus supports" in line


def test_rows_longer_than_the_positions_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, "--set", "data.sequence_length=1000")
    assert "data.sequence_length (1000) must not exceed the model's positions (512)" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("package", "cuda", "lacks"), [(False, True, "the package liger-kernel"), (True, False, "a CUDA device")]
)
def test_a_kernel_that_is_not_there_is_refused_before_anything_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: bool,
    cuda: bool,
    lacks: str,
) -> None:
    (tmp_path / "liger_kernel.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    if not package:
        monkeypatch.setitem(sys.modules, "liger_kernel", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    line = refusal(capsys, "--set", "training.vocabulary_loss=liger")
    assert f"training.vocabulary_loss (liger) must have {lacks}; " in line
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_this_torch_does_not_have_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(torch.nn.functional, "linear_cross_entropy", raising=False)
    line = refusal(capsys, "--set", "training.vocabulary_loss=torch")
    assert "training.vocabulary_loss (torch) must have a later torch; " in line
    assert not (tmp_path / "runs").exists()


def test_a_tokenizer_without_a_token_of_the_objective_is_refused_before_a_text_is_read_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "el": 1, "perro": 2}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[UNK]")
    tokenizer.save_pretrained(tmp_path / "words")
    for objective, token in (("masked", "cls_token"), ("causal", "eos_token"), ("denoising", "eos_token")):
        names = {"objective.name": objective, "tokenizer.folder": str(tmp_path / "words"), "output.folder": objective}
        settings = [word for name, value in names.items() for word in ("--set", f"{name}={value}")]
        line = refusal(capsys, *settings)
        assert f"{token} of tokenizer.folder ({tmp_path / 'words'}) must exist for objective {objective}" in line


def test_a_tracker_that_is_absent_or_none_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "get_available_trackers", lambda: [LoggerType.WANDB])
    line = refusal(capsys, "--set", "output.trackers=[wandb, tensorboard]")
    assert "output.trackers (tensorboard) must be installed; " in line
    line = refusal(capsys, "--set", "output.trackers=[foo]")
    assert "output.trackers (foo) must be trackers of Accelerate; choose among aim, " in line
    assert not (tmp_path / "runs").exists()


def test_a_tokenizer_that_is_nowhere_is_named_with_its_setting(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "--set", "tokenizer.folder=nowhere")
    assert "tokenizer.folder (nowhere) must be a folder with a tokenizer, or a Hub name that can be reached; " in line


@pytest.mark.parametrize(
    "words",
    [
        ("view", "runs/world", "A text."),
        ("check", "runs/world"),
        ("evaluate", "runs/world", "probes"),
        ("export", "runs/world", "out", "--to", "modernbert"),
    ],
    ids=lambda words: words[0],
)
def test_a_run_in_place_of_its_model_is_answered_with_where_the_model_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    (tmp_path / "runs" / "world" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "world" / "model" / "config.json").write_text("{}", encoding="utf-8")
    assert main(words) == 2
    expected = "hf-minilm: model (runs/world) must be a model's folder, not a run's; give runs/world/model."
    assert capsys.readouterr().err.splitlines() == [expected]


def test_a_single_document_cannot_serve_next_sentence_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.txt").write_text(PARAGRAPH * 50, encoding="utf-8")
    assert "documents" in refusal(capsys, "--set", "data.corpus=one.txt", "--set", "model.size=tiny")


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine", encoding="utf-8")
    assert "holds other files" in refusal(capsys, "--set", "output.folder=notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["thesis.txt"]


def test_the_printed_recipe_is_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--print-recipe"]) == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["pretrain", "printed.yaml", "--print-recipe"]) == 0
