"""A push to a Hub on loopback by the Hub's own client: interrupted, gone on with, read back, and refused."""

import itertools
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from pushing import PUSHED, TOKEN, Finished, push_several, refusal, run
from safetensors.torch import load_file
from writable_hub import WritableHub

from hf_minilm.cli.main import main

READ_BACK = """
import json, sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_minilm":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoTokenizer
from safetensors.torch import save_file

name, folder = sys.argv[1:]
read = {}
for revision in ("main", "v1", "checkpoint-2"):
    options = {"revision": revision, "code_revision": revision, "trust_remote_code": True}
    model = AutoModel.from_pretrained(name, **options).eval()
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    output = model(**tokenizer("The dog sees two keys.", return_tensors="pt")).last_hidden_state
    save_file({"states": output.detach().clone()}, f"{folder}/{revision}.safetensors")
    read[revision] = type(model).__module__
card = ModelCard.load(name)
card.validate()
read["results"] = {each.metric_type: each.metric_value for each in card.data.eval_results}
with open(f"{folder}/read.json", "w") as file:  # transformers prints, too
    json.dump(read, file)
"""


def push(hub: WritableHub, folder: Path, model: Path, name: str, *options: str, **how: Any) -> Any:
    return run(hub, folder, "-m", "hf_minilm.cli.main", "push", str(model), name, *options, **how)


def asked(hub: WritableHub, method: str, pattern: str) -> list[Any]:
    return [each for each in hub.requests if each.method == method and re.search(pattern, each.target)]


@pytest.fixture(scope="module")
def pushes(account: WritableHub, trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """Push a run to a new repository, whose Hub fails once as it takes weights, and to others that refuse it."""
    account.commit("ana/texts", {"train.jsonl": b"{}\n"}, kind="datasets")
    account.commit("ana/bert", {"config.json": b'{"model_type": "bert"}'}, kind="models")
    account.commit("ana/open", {"README.md": b"-"}, kind="models")
    account.repositories["models", "ana/bert"].private = True
    times = itertools.count()
    account.fails = lambda request: "/storage/" in request.target and next(times) == 0
    asked_for: dict[str, tuple[list[str], str | None]] = {
        "stories": (["ana/stories", *PUSHED], TOKEN),
        "changed": (["ana/stories", "--tag", "v1", "--license", "mit"], TOKEN),
        "wrong token": (["ana/new"], "hf_wrong"),
        "no token": (["ana/new"], None),
        "not mine": (["eva/new"], TOKEN),
        "data set": (["ana/texts"], TOKEN),
        "bert": (["ana/bert"], TOKEN),
        "open": (["ana/open"], TOKEN),
    }
    commands = [([str(trained_run), *words], token) for words, token in asked_for.values()]
    found = push_several(account, tmp_path_factory.mktemp("push"), commands)
    return dict(zip(asked_for, found, strict=True))


def test_a_push_prints_where_the_model_is(account: WritableHub, pushes: dict[str, Finished]) -> None:
    assert pushes["stories"].returncode == 0, pushes["stories"].stderr[-3000:]
    commit = account.repositories["models", "ana/stories"].branches["main"]
    assert pushes["stories"].stdout == f"{account.url}/ana/stories/tree/{commit}\n"


def test_weights_are_sent_again_where_the_hub_failed_and_no_others(
    account: WritableHub, pushes: dict[str, Finished]
) -> None:
    sent = [(each.target.split("/")[-1], each.status) for each in asked(account, "PUT", "/storage/")]
    # The finished model is the state of the last checkpoint, and is sent once for both.
    assert [status for _, status in sent] == [500, 200, 200]
    assert sent[0][0] == sent[1][0] != sent[2][0]


def test_a_tag_that_names_the_newest_commit_keeps_that_one_the_newest(
    account: WritableHub, pushes: dict[str, Finished]
) -> None:
    repository = account.repositories["models", "ana/stories"]
    newest = repository.branches["main"]
    line = refusal(pushes["changed"])
    assert f"tag (v1) must be new, and names commit {newest[:12]}, which differs in README.md; choose another" in line
    assert repository.tags == {"v1": newest}
    assert [each.title for each in repository.commits].count("Push stories with hf_minilm") == 1


@pytest.mark.slow
def test_an_interrupted_push_says_how_to_go_on_and_the_same_command_does(
    account: WritableHub, trained_run: Path, tmp_path: Path
) -> None:
    times, before = itertools.count(), len(asked(account, "PUT", "/storage/"))
    account.large_files.clear()
    account.fails = lambda request: "/ana/halved/commit/checkpoint-2" in request.target and next(times) == 0
    command = ([str(trained_run), "ana/halved", *PUSHED], TOKEN)
    interrupted, again = push_several(account, tmp_path, [command, command])
    line = refusal(interrupted)
    assert "the same command goes on where it stopped" in line
    assert "500" in line
    assert again.returncode == 0, again.stderr[-3000:]
    commits = [(each.target.split("/")[-1], each.status) for each in asked(account, "POST", "/ana/halved/commit/")]
    assert commits == [("main", 200), ("checkpoint-2", 500), ("checkpoint-2", 200), ("checkpoint-4", 200)]
    sent = [each.target for each in asked(account, "PUT", "/storage/")[before:]]
    assert len(sent) == len(set(sent)) == 2
    repository = account.repositories["models", "ana/halved"]
    assert again.stdout.strip().endswith(f"/ana/halved/tree/{repository.branches['main']}")
    assert repository.tags == {"v1": repository.branches["main"]}


def test_the_folder_is_opened_without_the_package_before_and_after(
    account: WritableHub, pushes: dict[str, Finished]
) -> None:
    lines = [line for line in pushes["stories"].stderr.splitlines() if "without hf_minilm" in line]
    where = [re.match(r"(\S+): opened from (the folder|ana/stories)", line).groups() for line in lines]  # type: ignore[union-attr]
    branches = ["main", "checkpoint-2", "checkpoint-4"]
    places = ("the folder", "ana/stories")
    assert where == [(branch, place) for place in places for branch in branches]
    assert all("through 10 heads, largest difference 0;" in line and "fill-mask: " in line for line in lines)
    commit = account.repositories["models", "ana/stories"].branches["main"]
    assert asked(account, "GET", f"/ana/stories/resolve/{commit}/modeling_minilm.py")


def test_each_checkpoint_has_a_branch_and_the_commit_its_tag(
    account: WritableHub, pushes: dict[str, Finished], trained_run: Path
) -> None:
    repository = account.repositories["models", "ana/stories"]
    assert set(repository.branches) == {"main", "checkpoint-2", "checkpoint-4"}
    assert repository.tags == {"v1": repository.branches["main"]}
    for branch in ("checkpoint-2", "checkpoint-4"):
        weights = (trained_run / "checkpoints" / branch / "model.safetensors").read_bytes()
        files = repository.at(branch).files
        assert files["model.safetensors"] == weights
        assert not {"report.json", "loss.png", "optimizer.safetensors", "training_state.json"} & set(files)
        assert f"The state after step {branch[-1]} of a training" in files["README.md"].decode()
    files = repository.at("main").files
    assert {"README.md", "recipe.yaml", "report.json", "loss.png", "tokenizer.json", "attention.py"} <= set(files)


def test_nothing_that_is_uploaded_says_where_the_run_lay_or_what_it_read(
    account: WritableHub, pushes: dict[str, Finished], trained_run: Path
) -> None:
    report = json.loads((trained_run / "report.json").read_text(encoding="utf-8"))
    assert str(trained_run.parent) in json.dumps(report)
    assert report["filled"]
    for commit in account.repositories["models", "ana/stories"].commits:
        for path, content in commit.files.items():
            if not path.endswith((".safetensors", ".png")):
                text = content.decode()
                assert str(trained_run.parent) not in text, path
                assert TOKEN not in text, path
                assert not any(mask["text"] in text for mask in report["filled"]), path


def test_a_repository_is_private_and_one_that_is_not_is_left_alone(
    account: WritableHub, pushes: dict[str, Finished]
) -> None:
    assert account.repositories["models", "ana/stories"].private
    assert "must be private without --public" in refusal(pushes["open"])
    assert len(account.repositories["models", "ana/open"].commits) == 1


def test_a_wrong_token_and_none_and_the_name_of_another_are_one_line_each(
    account: WritableHub, pushes: dict[str, Finished]
) -> None:
    line = refusal(pushes["wrong token"])
    assert "token (refused with 401) must be valid" in line
    assert "hf_wrong" not in line
    assert "token (none) must be there" in refusal(pushes["no token"])
    assert ("models", "ana/new") not in account.repositories
    assert "token (refused with 403) must be valid and may write to eva/new" in refusal(pushes["not mine"])


def test_a_repository_of_something_else_is_left_alone(account: WritableHub, pushes: dict[str, Finished]) -> None:
    assert "repository (ana/texts) must be a model's, and is a dataset's" in refusal(pushes["data set"])
    line = refusal(pushes["bert"])
    assert "repository (ana/bert, of a bert) must be empty or of this package's models" in line
    assert len(account.repositories["models", "ana/bert"].commits) == 1


@pytest.mark.slow
def test_a_repository_becomes_public_where_that_is_asked_for_and_only_at_the_end(
    account: WritableHub, trained_run: Path, tmp_path: Path
) -> None:
    finished = push(account, tmp_path, trained_run / "model", "ana/shown", "--public")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert not account.repositories["models", "ana/shown"].private
    created = json.loads(asked(account, "POST", "/api/repos/create")[-1].body)
    assert created.get("visibility") == "private" or created.get("private") is True
    order = [each.target for each in account.requests if "ana/shown" in each.target]
    assert order.index("/api/models/ana/shown/settings") > max(
        number for number, target in enumerate(order) if "/resolve/" in target
    )


@pytest.mark.slow
def test_what_was_pushed_opens_where_the_package_is_not(
    account: WritableHub, pushes: dict[str, Finished], trained_run: Path, tmp_path: Path
) -> None:
    finished = run(account, tmp_path, "-c", READ_BACK, "ana/stories", str(tmp_path))
    assert finished.returncode == 0, finished.stderr[-3000:]
    read = json.loads((tmp_path / "read.json").read_text(encoding="utf-8"))
    assert all(read[revision].startswith("transformers_modules.") for revision in ("main", "v1", "checkpoint-2"))
    states = {name: load_file(tmp_path / f"{name}.safetensors")["states"] for name in ("main", "v1", "checkpoint-2")}
    assert states["main"].equal(states["v1"])
    assert not states["main"].allclose(states["checkpoint-2"])
    report = json.loads((trained_run / "report.json").read_text(encoding="utf-8"))
    assert read["results"]["loss"] == round(report["held_out"]["nats_per_token"], 6)


@pytest.mark.slow
def test_a_push_that_is_killed_while_it_sends_weights_goes_on(
    account: WritableHub, trained_run: Path, tmp_path: Path
) -> None:
    account.large_files.clear()
    account.stalls = lambda request: request.method == "PUT" and "/storage/" in request.target
    process = push(account, tmp_path, trained_run, "ana/killed", background=True)
    assert account.stalled.wait(timeout=200)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    account.stalls = lambda request: False
    account.released.set()
    repository = account.repositories["models", "ana/killed"]
    assert [commit.title for commit in repository.commits] == ["initial commit"]
    assert repository.private
    finished = push(account, tmp_path, trained_run, "ana/killed")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert repository.at("main").files["model.safetensors"] == (trained_run / "model/model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_tag_that_names_another_commit_and_a_strange_licence_are_one_line(
    account: WritableHub, trained_run: Path, tmp_path: Path
) -> None:
    assert push(account, tmp_path, trained_run, "ana/tagged", "--tag", "v1").returncode == 0
    assert push(account, tmp_path, trained_run, "ana/tagged", "--license", "apache-2.0").returncode == 0
    line = refusal(push(account, tmp_path, trained_run, "ana/tagged", "--tag", "v1", "--license", "mit"))
    assert "tag (v1) must be new" in line
    line = refusal(push(account, tmp_path, trained_run, "ana/odd", "--license", "my-own"))
    assert "license" in line
    assert ("models", "ana/odd") not in account.repositories


@pytest.mark.slow
def test_an_encoder_decoder_is_pushed_and_read_back(account: WritableHub, translator: Path, tmp_path: Path) -> None:
    finished = push(account, tmp_path, translator, "ana/translator")
    assert finished.returncode == 0, finished.stderr[-3000:]
    lines = [line for line in finished.stderr.splitlines() if "without hf_minilm" in line]
    assert len(lines) == 2
    assert all("generate: " in line for line in lines)


@pytest.mark.slow
def test_a_dry_run_writes_the_folder_and_asks_no_hub(
    translator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    assert main(["push", str(translator), "ana/translator", "--dry-run", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(folder)
    assert "main: opened from the folder without hf_minilm, through" in said.err
    assert "the card leaves unsaid what --license, --data-license, --language, --base-model would say" in said.err
    assert {"README.md", "model.safetensors", "modeling_minilm_seq2seq.py", "tokenizer.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert main(["push", str(translator), "ana/translator", "--dry-run", str(folder)]) == 2
    assert "must be new or empty" in capsys.readouterr().err


@pytest.mark.slow
def test_code_that_computes_something_else_is_refused(
    translator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in translator.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    attention = (changed / "attention.py").read_text(encoding="utf-8")
    assert "self.scaling = " in attention
    (changed / "attention.py").write_text(
        attention.replace("self.scaling = ", "self.scaling = 1.5 * "), encoding="utf-8"
    )
    assert main(["push", str(changed), "ana/changed", "--dry-run", str(tmp_path / "out")]) == 2
    assert "must be the same without hf_minilm, and differs by" in capsys.readouterr().err
