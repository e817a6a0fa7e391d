"""What must not leave the machine is reduced where this package writes it, and refused wherever it stands."""

import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hf_minilm.hub.privacy import published_recipe, refuse_secrets
from hf_minilm.training.recipe import Recipe, difference, load_recipe


def test_a_published_recipe_is_the_recipe_but_for_places() -> None:
    places = {
        "data.corpus": "[/data/acme/a.txt, builtin:docs, texts/b.txt]",
        "data.cache_folder": "/data/cache",
        "tokenizer.folder": "~/tokenizer",
        "output.folder": "/data/runs/mine",
    }
    recipe = load_recipe(None, [f"{name}={value}" for name, value in places.items()] + ["training.seed=3"])
    published = published_recipe(recipe)
    assert published.corpora == ("a.txt", "builtin:docs", "texts/b.txt")
    assert (published.tokenizer.folder, published.output.folder) == ("tokenizer", "mine")
    assert published.data.cache_folder is None
    assert set(difference(recipe, published)) == set(places)
    assert published_recipe(Recipe()) == Recipe()


SECRETS = {
    "a Hugging Face token": "hf_" + "a1B2" * 9,
    "a GitHub token": "ghp_" + "a1B2" * 9,
    "a GitLab token": "glpat-" + "a1B2c" * 4,
    "an AWS key": "AKIA" + "A1B2" * 4,
    "a Google key": "AIza" + "a1B2c" * 7,
    "a Slack token": "xoxb-1234567890-abc",
    "an API key": "sk-" + "a1B2" * 10,
    "a private key": "-----BEGIN RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("what", SECRETS)
def test_a_token_in_any_file_is_refused_with_its_place_and_not_repeated(what: str, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "README.md").write_text("fine\n", encoding="utf-8")
    refuse_secrets(tmp_path)
    (tmp_path / "inner" / "notes.txt").write_text(f"one\ntwo: {SECRETS[what]}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"file \(inner/notes.txt, line 2\) must not hold {what}") as refused:
        refuse_secrets(tmp_path)
    assert SECRETS[what] not in str(refused.value)


def test_the_token_in_use_is_refused_whatever_its_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "open sesame")
    (tmp_path / "config.json").write_text('{"name": "open sesame"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"config.json, line 1\) must not hold your token of the Hub"):
        refuse_secrets(tmp_path)


def test_the_home_folder_is_refused_and_a_longer_name_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    (tmp_path / "tokenizer_config.json").write_text('{"from": "/home/anabel/x", "and": "x/home/ana"}', encoding="utf-8")
    refuse_secrets(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"from": "/home/ana/x"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer_config.json, line 1\) must not hold the path of your home folder"):
        refuse_secrets(tmp_path)


def test_a_home_folder_at_the_root_is_refused_only_where_the_path_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/root")
    (tmp_path / "tokenizer.json").write_text('{"/root": 300}', encoding="utf-8")
    refuse_secrets(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"from": "/root/runs"}', encoding="utf-8")
    with pytest.raises(ValueError, match="must not hold the path of your home folder"):
        refuse_secrets(tmp_path)


def test_a_path_of_the_machine_is_refused_also_in_the_header_of_weights(tmp_path: Path) -> None:
    weights = {"weight": torch.zeros(3)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"from": "elsewhere"})
    refuse_secrets(tmp_path, machine_paths=(Path("/data/acme"),))
    save_file(weights, tmp_path / "model.safetensors", metadata={"from": "/data/acme/run"})
    with pytest.raises(ValueError, match=r"model.safetensors, line 1\) must not hold a path of this machine \(acme\)"):
        refuse_secrets(tmp_path, machine_paths=(Path("/data/acme"),))


@pytest.mark.parametrize(("host", "is_refused"), [("node-17", True), ("ip.acme.org", True), ("laptop", False)])
def test_the_name_of_the_machine_is_refused_unless_it_is_a_word(
    host: str, is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    (tmp_path / "report.json").write_text(json.dumps({"device": f"cpu of {host}"}), encoding="utf-8")
    if is_refused:
        with pytest.raises(ValueError, match="must not hold the name of this machine"):
            refuse_secrets(tmp_path)
    else:
        refuse_secrets(tmp_path)
