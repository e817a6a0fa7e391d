"""A whole run writes no pickle, reads none, keeps no secret, and its model opens without a network or foreign code."""

import json
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

from hf_minilm import MiniLMConfig, MiniLMModel
from hf_minilm.cli.main import main

SECRETS = {
    "HF_TOKEN": "hf_QwErTyUiOpAsDfGhJkLzXcVbNm12345678",
    "HUGGING_FACE_HUB_TOKEN": "hf_AAAAtyUiOpAsDfGhJkLzXcVbNm12345678",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
    "MY_PASSWORD": "correct-horse-battery-staple",
}
HOST = "host-of-somebody.example"
TEXT = "El perro duerme. La casa es grande y el sol brilla. Ana lee un libro.\n\n"
SMALL = ["training.batch_rows=4", "data.sequence_length=32", "model.size=tiny", "evaluation.rows=4"]
MAGIC = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"PK\x05\x06")


class Events:
    """Notes of what an audit hook sees while a block asks for it; a hook cannot be removed."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[Any, ...]]] | None = None
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.seen is not None and event in ("pickle.find_class", "socket.connect", "socket.getaddrinfo", "open"):
            self.seen.append((event, arguments))

    def begin(self) -> None:
        self.seen = []

    def end(self) -> list[tuple[str, tuple[Any, ...]]]:
        seen, self.seen = self.seen or [], None
        return seen


@pytest.fixture(scope="module")
def events() -> Events:
    return Events()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, events: Events) -> Iterator[Path]:
    """A run of two parts, the second of which goes on from the first's checkpoint, with secrets all around it."""
    home = tmp_path_factory.mktemp("home-of-somebody")
    (home / "text.txt").write_text(
        "".join(f"{TEXT}{TEXT}Cuento {number}. {TEXT}\n" for number in range(20)), encoding="utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SECRETS, "HF_MINILM_CACHE": str(home / "cache"), "HF_HUB_OFFLINE": "1"}.items():
            patch.setenv(name, value)
        patch.setattr(socket, "gethostname", lambda: HOST)
        patch.chdir(home)
        corpus = f"data.corpus={home / 'text.txt'}"
        words = ["pretrain", *(f"--set={each}" for each in [*SMALL, corpus, "training.budget=4steps"])]
        words += ["--set=training.save_every=2steps", "--set=training.keep_last=9", "--set=output.folder=run"]
        events.begin()
        assert main(words) == 0
        for name in ("report.txt", "report.json"):
            (home / "run" / name).unlink()
        for path in (home / "run" / "checkpoints").glob("checkpoint-4"):
            path.rename(home / "other")
        assert main(words) == 0
        yield home / "run"
        events.end()


def written(run: Path) -> list[Path]:
    return [path for path in run.rglob("*") if path.is_file()]


def test_a_run_that_goes_on_and_a_fine_tuning_unpickle_nothing(run: Path, events: Events, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(run / "model", num_labels=2)
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    row = {**tokenizer("El perro duerme", return_token_type_ids=True), "labels": 1}
    settings: dict[str, Any] = {"max_steps": 1, "report_to": [], "use_cpu": True, "save_strategy": "no"}
    Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), disable_tqdm=True, **settings),
        train_dataset=[row] * 4,
    ).train()
    assert any(event == "open" for event, _ in events.seen or [])
    assert [arguments for event, arguments in events.seen or [] if event == "pickle.find_class"] == []


def test_no_file_that_a_run_writes_is_a_pickle_or_an_archive(run: Path) -> None:
    files = written(run)
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        assert not content.startswith(MAGIC), path
        assert path.suffix in (".json", ".jsonl", ".safetensors", ".yaml", ".txt", ".png", ".lock", ".py", ".md"), path


def test_no_secret_is_in_any_file_that_a_run_writes(run: Path) -> None:
    hidden = [value.encode() for value in SECRETS.values()]
    for path in written(run):
        content = path.read_bytes()
        assert not any(value in content for value in hidden), path
        assert (HOST.encode() in content) == (path.name == "run.lock"), path


def test_no_file_of_a_run_says_where_the_users_home_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home-of-another"
    home.mkdir()
    (home / "text.txt").write_text(
        "".join(f"{TEXT}{TEXT}Cuento {number}. {TEXT}\n" for number in range(20)), encoding="utf-8"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    paths = [f"data.corpus={home / 'text.txt'}", "output.folder=run", f"data.cache_folder={home / 'cache'}"]
    words = ["pretrain", *(f"--set={each}" for each in [*SMALL, *paths, "training.budget=2steps"])]
    assert main(words) == 0
    assert (home / "cache").is_dir()
    assert main(["pretrain", "run/recipe.yaml", "--set=training.save_every=1steps"]) == 0
    files = written(home / "run")
    assert home / "run" / "report.txt" in files
    assert [path for path in files if str(home).encode() in path.read_bytes()] == []


def test_what_may_be_uploaded_does_not_say_where_it_was_made(run: Path) -> None:
    for path in written(run / "model"):
        content = path.read_bytes()
        assert str(run.parent).encode() not in content, path
        # The card and the recipe beside it name the file alone, so that the run can be made again.
        assert (b"text.txt" in content) == (path.name in ("README.md", "recipe.yaml")), path


def test_a_corpus_url_with_a_password_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "--set=data.corpus=https://somebody:secret@example.org/a.txt"]) == 2
    assert list(tmp_path.rglob("*")) == []


def test_a_model_opens_without_a_network_and_without_code_from_elsewhere(
    run: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = run / "model" / "configuration_minilm.py"
    evil.write_text("raise SystemExit('ran')", encoding="utf-8")
    (run / "model" / "modeling_minilm.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    before, modules = len(events.seen or []), set(sys.modules)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for auto in (AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification):
        assert type(auto.from_pretrained(run / "model")).__module__.startswith("hf_minilm.")
    assert type(AutoConfig.from_pretrained(run / "model")) is MiniLMConfig
    assert AutoTokenizer.from_pretrained(run / "model") is not None
    seen = (events.seen or [])[before:]
    assert any(event == "open" for event, _ in seen)
    assert [arguments for event, arguments in seen if event.startswith("socket.")] == []
    assert [name for name in set(sys.modules) - modules if "transformers_modules" in name] == []
    assert not any(str(arguments[0]).endswith((evil.name, "modeling_minilm.py")) for _, arguments in seen)


KEYS: tuple[dict[str, Any], ...] = (
    {"trust_remote_code": True},
    {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}},
    {"auto_map": {"AutoModel": "somebody/repository--evil.Model"}},
    {"custom_generate": "somebody/repository"},
    {"_name_or_path": "somebody/repository"},
    {"architectures": ["EvilModel"]},
    {"attn_implementation": "somebody/kernel"},
    {"_attn_implementation": "somebody/kernel"},
    {"_attn_implementation_internal": "somebody/kernel"},
    {"attn_implementation": "paged|somebody/kernel"},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    MiniLMModel(MiniLMConfig(vocab_size=23, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(
        tmp_path / "model"
    )
    return tmp_path / "model"


@pytest.mark.parametrize("fields", KEYS, ids=str)
def test_a_configuration_cannot_ask_for_code(fields: dict[str, Any], folder: Path, events: Events) -> None:
    (folder / "evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**content, **fields}), encoding="utf-8")
    before = len(events.seen) if events.seen is not None else events.begin()
    if "attn_implementation" in str(fields) and "internal" not in str(fields):
        with pytest.raises(ValueError, match="must name no repository"):
            AutoModel.from_pretrained(folder)
    else:
        assert type(AutoModel.from_pretrained(folder)) is MiniLMModel
    seen = (events.seen or [])[before or 0 :]
    assert [arguments for event, arguments in seen if event.startswith("socket.")] == []
    assert not any(str(arguments[0]).endswith("evil.py") for _, arguments in seen)


class Payload:
    """Unpickled, it leaves a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("ran",))


PICKLES = (
    *("pytorch_model.bin", "pytorch_model.bin.index.json", "training_args.bin", "optimizer.pt", "scheduler.pt"),
    *("rng_state.pth", "random_states_0.pkl", "custom_checkpoint_0.pkl", ".metadata", "adapter_model.bin"),
    *("flax_model.msgpack", "tokenizer.pkl"),
)


@pytest.mark.parametrize("keeps_weights", [True, False])
@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_in_a_model_folder_is_never_run(
    name: str, keeps_weights: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    (folder / name).write_bytes(pickle.dumps(Payload()))
    if not keeps_weights:
        (folder / "model.safetensors").unlink()
        assert main(["check", str(folder), "--quick"]) == 2
    else:
        assert load_file(folder / "model.safetensors").keys() == MiniLMModel.from_pretrained(folder).state_dict().keys()
    assert not Path("ran").exists()


OUTSIDE = (
    *("../secret.safetensors", "../../secret.safetensors", "inner/../../secret.safetensors", "/etc/passwd", "//x/y"),
    *("..", ".", "", "inner/secret.safetensors", "./model.safetensors", "~/x/y", "a\\..\\b/c", "/dev/zero", "a/\0"),
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_of_weights_that_leads_out_of_the_folder_is_refused(
    name: str, folder: Path, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    index = {"metadata": {}, "weight_map": {"embeddings.tokens.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    before = len(events.seen) if events.seen is not None else events.begin()
    assert main(["check", str(folder), "--quick"]) == 2
    assert "must name files beside it" in capsys.readouterr().err
    opened = [str(arguments[0]) for event, arguments in (events.seen or [])[before or 0 :] if event == "open"]
    assert not any("secret" in path or path in ("/etc/passwd", "/dev/zero") for path in opened)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"[" * 100_000, b'{"weight_map": 3}', b'{"weight_map": {"a": 3}}']
)
def test_an_index_that_is_none_is_one_line(
    content: bytes, folder: Path, capsys: pytest.CaptureFixture[str], bounded: Callable
) -> None:
    (folder / "model.safetensors.index.json").write_bytes(content)
    with bounded(seconds=2, megabytes=100):
        assert main(["check", str(folder), "--quick"]) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]) == 1
