"""The recipes in examples/ are valid, and each trains a model from the command line."""

import json
from pathlib import Path

import pytest
from transformers import AutoModel, AutoTokenizer

from hf_minilm.cli.main import main
from hf_minilm.training import pretrain
from hf_minilm.training.recipe import load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "examples" / "recipes").glob("*.yaml"))
BUILT_IN = [path for path in RECIPES if all(name.startswith("builtin:") for name in load_recipe(path).corpora)]
OWN_TEXT = [path for path in RECIPES if path not in BUILT_IN]
SMALL = (
    "model.size=tiny",
    "training.budget=2steps",
    "training.batch_rows=4",
    "training.micro_batch_rows=3",
    "training.log_every=1",
    "data.sequence_length=48",
    "evaluation.rows=8",
)


@pytest.fixture(autouse=True)
def _small_and_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrain, "PROBES_EACH", 2)


def run(recipe: Path, folder: Path, *more: str) -> None:
    settings = (*SMALL, f"output.folder={folder}", *more)
    assert main(["pretrain", str(recipe), *(word for setting in settings for word in ("--set", setting))]) == 0


def assert_finished(folder: Path, printed: str) -> None:
    """All that a run leaves is there and can be read."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["facts"]["steps"] == 2
    assert report["held_out"]["nats_per_token"] > 0
    assert (folder / "report.txt").read_text(encoding="utf-8") == printed
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    model = AutoModel.from_pretrained(folder / "model")
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(folder / "model"))


def write_paragraphs(folder: Path) -> None:
    """Fill a folder with two files of generated sentences, of several documents each."""
    folder.mkdir()
    animals, places = ("dog", "cat", "gato", "perro", "owl"), ("garden", "house", "calle", "river")
    documents = [
        "\n\n".join(
            f"The {animals[(number + place) % 5]} sleeps in the {where} and sees {number} others. Then it wakes."
            for place, where in enumerate(places)
        )
        for number in range(31)
    ]
    (folder / "first.txt").write_text("\n\n\n".join(documents[:17]), encoding="utf-8")
    (folder / "second.txt").write_text("\n\n\n".join(documents[17:]), encoding="utf-8")


def test_there_are_recipes_of_both_kinds() -> None:
    assert {path.stem for path in BUILT_IN} >= {"world", "causal", "translate"}
    assert {path.stem for path in OWN_TEXT} >= {"text_encoder", "text_decoder"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_says_how_it_is_run(path: Path) -> None:
    load_recipe(path)
    assert f"hf-minilm pretrain examples/recipes/{path.name}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_a_recipe_of_the_built_in_corpus_trains_and_reports(path: Path, tmp_path: Path, capsys) -> None:
    run(path, tmp_path / "run", "data.world_documents=60")
    assert_finished(tmp_path / "run", capsys.readouterr().out)


@pytest.mark.parametrize("path", OWN_TEXT, ids=lambda path: path.stem)
def test_a_recipe_of_ones_own_text_trains_and_reports(path: Path, tmp_path: Path, capsys) -> None:
    write_paragraphs(tmp_path / "text")
    run(
        path,
        tmp_path / "run",
        f"data.corpus={tmp_path / 'text'}",
        "tokenizer.vocab_size=auto",
        "training.save_every=1steps",
    )
    assert_finished(tmp_path / "run", capsys.readouterr().out)


def test_the_same_command_again_prints_the_same_report(tmp_path: Path, capsys) -> None:
    write_paragraphs(tmp_path / "text")
    words = ("objective.next_sentence=false", f"data.corpus={tmp_path / 'text'}", "tokenizer.vocab_size=auto")
    recipe = tmp_path / "empty.yaml"
    recipe.write_text("")
    run(recipe, tmp_path / "run", *words)
    first = capsys.readouterr().out
    run(recipe, tmp_path / "run", *words)
    assert capsys.readouterr().out.startswith(first)
