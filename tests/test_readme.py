"""The README says what is true: its Python runs, its commands name options that exist, its length is kept."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hf_minilm
from hf_minilm import MiniLMConfig, MiniLMForPreTraining
from hf_minilm.cli.main import main
from hf_minilm.data.tokenizer import train_tokenizer
from hf_minilm.data.world import World
from hf_minilm.training.launch import LAUNCH_LINE
from hf_minilm.training.recipe import load_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "runs/world/model"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def block_with(text: str) -> str:
    (found,) = (block for block in blocks("python") if text in block)
    return found


def commands() -> list[list[str]]:
    """Every shell command of the README, split into words as a shell does."""
    joined = "\n".join(blocks("bash")).replace("\\\n", "")
    parts = [part for line in joined.splitlines() for part in line.split("&&")]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


def pretrain_words() -> list[list[str]]:
    """What follows `pretrain` in every command that has it."""
    return [words[words.index("pretrain") + 1 :] for words in commands() if "pretrain" in words]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `runs/world/model` holds a small model with initial weights."""
    folder = tmp_path_factory.mktemp("home")
    documents = list(World(("es", "en"), seed=0).documents(40, split="train"))
    tokenizer = train_tokenizer(documents, kind="wordpiece", vocab_size="auto")
    torch.manual_seed(0)
    model = MiniLMForPreTraining(MiniLMConfig.preset("modern", "tiny", vocab_size=len(tokenizer)))
    model.save_pretrained(folder / MODEL)
    tokenizer.save_pretrained(folder / MODEL)
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def execute(block: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    return names


def test_every_python_block_is_executed_by_a_test_below() -> None:
    marks = ("fill-mask", "Trainer")
    assert sorted(blocks("python")) == sorted(block_with(mark) for mark in marks)


def test_the_first_block_fills_a_mask_and_shows_weights_that_sum_to_one(capsys: pytest.CaptureFixture[str]) -> None:
    names = execute(block_with("fill-mask"))
    attentions = names["attentions"]
    assert len(attentions) == names["model"].config.num_hidden_layers
    for weights in attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert "'[MASK]'" in capsys.readouterr().out


# The README's Trainer looks for an accelerator, and torch remarks that there is none.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_the_fine_tuning_block_trains(home: Path) -> None:
    names = execute(block_with("Trainer"))
    assert names["model"].config.num_labels == 2
    assert names["arguments"].bf16 == torch.cuda.is_available()  # the attention there is for 16 bits


def test_a_process_without_the_package_opens_the_model(home: Path, tmp_path: Path) -> None:
    absent = "import sys\nsys.modules['hf_minilm'] = None\n"
    checked = "\nassert type(model).__module__.startswith('transformers_modules'), type(model)\n"
    environment = os.environ | {
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path / "m"),
    }
    (call,) = re.findall(r"`(AutoModel\.from_pretrained\(.*trust_remote_code=True\))`", README)
    code = f"{absent}from transformers import AutoModel\nmodel = {call}{checked}"
    result = subprocess.run([sys.executable, "-c", code], cwd=home, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_pretrain_command_names_recipes_and_settings_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(pretrain_words()) >= 6
    for words in pretrain_words():
        existing = [
            str(ROOT / word) if word.startswith("examples/") else word for word in words if word != "RECIPE.yaml"
        ]
        assert main(["pretrain", "--print-recipe", *existing]) == 0
    assert "training:" in capsys.readouterr().out


def test_no_two_pretrain_commands_meet_in_a_folder() -> None:
    recipes = []
    for words in pretrain_words():
        parsed = argparse.ArgumentParser()
        parsed.add_argument("recipe", nargs="?")
        parsed.add_argument("--set", action="append", default=[])
        given = parsed.parse_args(words)
        if given.recipe != "RECIPE.yaml":
            recipes.append(load_recipe(None if given.recipe is None else ROOT / given.recipe, given.set))
    folders = [recipe.output_folder for recipe in recipes]
    assert len(folders) >= 5
    assert len(set(folders)) == len(folders)


def test_a_text_on_the_command_line_has_single_spaces() -> None:
    texts = [word for words in commands() for word in words if " " in word]
    assert any(word.startswith("Elena") for word in texts)
    assert [word for word in texts if "  " in word] == []


def test_every_setting_named_in_the_text_is_a_field_of_a_recipe() -> None:
    sections = "model|tokenizer|data|objective|optimizer|training|evaluation|output"
    recipe = load_recipe()
    for section, name in re.findall(rf"`({sections})\.(\w+)[^`/]*`", README):
        assert hasattr(getattr(recipe, section), name), f"{section}.{name}"


def test_the_launch_line_is_the_one_that_errors_recommend() -> None:
    assert LAUNCH_LINE.format(processes=2) in README


def test_files_that_are_linked_or_listed_exist() -> None:
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(\S+/)  +\S", contributing, flags=re.MULTILINE)
    assert linked
    assert listed
    assert [name for name in (*linked, *listed) if not (ROOT / name).exists()] == []


def test_the_readme_is_shorter_than_200_lines() -> None:
    assert len(README.splitlines()) < 200


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[?v?([^\s\]]+)", text, flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == hf_minilm.__version__
