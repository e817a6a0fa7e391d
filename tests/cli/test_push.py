"""`hf-minilm push` and `card` refuse a mistake with one line before anything is opened, written or asked."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from hf_minilm.cli.main import main

TAGS = ("v1", "v1.0-rc.1", "año/2", "a@b", "@", "1{", "a]b", "a.locks")
NO_TAGS = (
    "",
    " ",
    "bad tag~",
    "a^",
    "a:b",
    "a?",
    "a*",
    "a[b",
    "a\\b",
    "a\tb",
    "a\x7fb",
    "a@{b",
    "a..b",
    ".a",
    "a.",
    "a/.b",
)
NOR_THESE = ("/a", "a/", "a//b", "a.lock", "a.lock/b")


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["mine", "ana/mine/again", "ana/", "/mine", "ana/mine now", "https://hub/ana"])
def test_a_name_that_no_repository_can_have_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"REPO_ID ({name}) must be owner/name" in refusal(capsys, "push", "runs/world", name)


@pytest.mark.parametrize("name", ["ana/mine--too", "ana/mine..too", "ana/mine.git", f"ana/{'m' * 97}"])
def test_a_name_that_the_hub_gives_to_none_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"REPO_ID ({name}) must be a model's name on the Hub" in refusal(capsys, "push", "runs/world", name)
    assert f"--repo-id ({name}) must be a model's name on the Hub" in refusal(capsys, "card", "a", "--repo-id", name)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not there to ask")
@pytest.mark.parametrize("tag", [*TAGS, *NO_TAGS, *NOR_THESE])
def test_a_tag_is_refused_where_git_would_refuse_it(tag: str, capsys: pytest.CaptureFixture[str]) -> None:
    is_one = subprocess.run(["git", "check-ref-format", f"refs/tags/{tag}"]).returncode == 0
    line = refusal(capsys, "push", "runs/world", "ana/mine", "--dry-run", "out", f"--tag={tag}")
    assert ("must be a name that git takes" not in line) == is_one
    assert "tag (-a) must be a name" in refusal(capsys, "push", "runs/world", "ana/mine", "--tag=-a")


@pytest.mark.parametrize("command", [("push", "{}", "ana/mine", "--dry-run", "out"), ("card", "{}")])
def test_a_folder_that_holds_no_model_of_this_package_is_refused(
    command: tuple[str, ...], other_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(folder: Path) -> str:
        return refusal(capsys, *(word.format(folder) for word in command))

    assert "must be the folder of a run or of a model; check the path." in refused(tmp_path / "missing")
    assert "must hold config.json, or recipe.yaml and model/" in refused(tmp_path)
    assert "a bert) must be one of this package; push others with hf upload." in refused(other_model)
    (tmp_path / "recipe.yaml").write_text("", encoding="utf-8")
    assert "must be finished, and has no model/" in refused(tmp_path)


def test_of_a_folder_that_holds_checkpoints_the_newest_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step, file in ((9, "config.json"), (10, "config.json"), (11, "adapter_config.json")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / file).write_text("{}", encoding="utf-8")
    line = refusal(capsys, "push", str(tmp_path), "ana/mine", "--dry-run", "out")
    assert line.endswith(f"recipe.yaml and model/; give its newest checkpoint, {tmp_path / 'checkpoint-10'}.")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--license", "Apache 2.0", "license (Apache 2.0) must be the Hub's name of a licence"),
        ("--data-license", "CC-BY", "data license (CC-BY) must be the Hub's name of a licence"),
        ("--language", "Spanish", "language (Spanish) must be codes of ISO 639"),
        ("--base-model", "not a name!", "base model (not a name!) must be a model's name on the Hub, as owner/name; "),
    ],
)
def test_a_statement_that_the_hub_would_not_read_is_refused(
    option: str, value: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refusal(capsys, "push", "runs/world", "ana/mine", option, value)
    assert expected in refusal(capsys, "card", "runs/world", option, value)


def test_a_weight_in_another_format_a_missing_tokenizer_and_missing_code_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> str:
        return refusal(capsys, "push", str(tmp_path), "ana/mine", "--dry-run", str(tmp_path / "out"))

    config = {"model_type": "hf_minilm", "auto_map": {"AutoModel": "modeling_minilm.MiniLMModel"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "must have weights in safetensors" in refused()
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "must have its tokenizer beside it" in refused()
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert "must carry its code, and lacks modeling_minilm.py" in refused()


def test_one_name_on_the_hub_goes_with_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--repo-id (ana/mine) must go with one model" in refusal(capsys, "card", "a", "b", "--repo-id", "ana/mine")


def test_damaged_weights_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1, "vocab_size": 9}
    config = {"model_type": "hf_minilm", **stack, "position_embedding": "rope", "max_position_embeddings": 8}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"half of it")
    assert "model.safetensors) must be whole; save the model again" in refusal(capsys, "card", str(tmp_path))
