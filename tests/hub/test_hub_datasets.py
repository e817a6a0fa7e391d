"""Data sets on a Hub, read by the Hub's own clients in processes of their own, over HTTP on loopback."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from hf_minilm.data.world import World

NOVELS = [
    ["En un lugar de la Mancha, de cuyo nombre no quiero acordarme…", "¿Qué señales había? «¡Ningún pingüino!»"],
    ["Tres tristes tigres."],
    ["Vino el año: €100, 日本語 y 🐧.", "Fin."],
]
CONFIGURATIONS = """---
language: es
configs:
- config_name: large
  default: true
  data_files:
  - split: train
    path: large/train.jsonl
- config_name: small
  data_files:
  - split: train
    path: small/first.jsonl
  - split: test
    path: small/second.jsonl
---
# Textos
"""
READ = """
import json, sys
from hf_minilm.data.readers import HubDataset

read = {}
for address in sys.argv[1:]:
    try:
        read[address] = [(document.source, document.paragraphs) for document in HubDataset(address).documents()]
    except (OSError, ValueError) as error:
        read[address] = str(error)
print(json.dumps(read))
"""
READ_AROUND_A_COMMIT = """
import json
from hf_minilm.data.readers import HubDataset

def read(data_set):
    return [document.text for document in data_set.documents()]

early = HubDataset("owner/growing")
print(early.fingerprint(), flush=True)
input()
late = HubDataset("owner/growing")
print(json.dumps([early.fingerprint(), read(early), late.fingerprint(), read(late)]))
"""


def as_lines(texts: list[str], *, escaped: bool = False) -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=escaped) + "\n" for text in texts).encode()


def as_parquet(columns: dict[str, list[Any]]) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), stream, row_group_size=2)
    return stream.getvalue()


def run(hub: Any, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, where its home is too."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=hub.environment(folder / "home"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def commits(hub: Any) -> dict[str, str]:
    """The commit of each repository."""
    texts = ["\n\n".join(novel) for novel in NOVELS]
    files: dict[str, dict[str, bytes]] = {
        "owner/lines": {"train-1.jsonl": as_lines(texts[:2]), "train-2.jsonl": as_lines(texts[2:], escaped=True)},
        "owner/columns": {"data/train-00000-of-00001.parquet": as_parquet({"title": ["a", "b", "c"], "text": texts})},
        "owner/lists": {"data/train-00000-of-00001.parquet": as_parquet({"paragraphs": NOVELS})},
        "owner/configured": {
            "README.md": CONFIGURATIONS.encode(),
            "large/train.jsonl": as_lines(["Grande."]),
            "small/first.jsonl": as_lines(["Pequeño."]),
            "small/second.jsonl": as_lines(["Prueba.", "Otra."]),
        },
        "owner/shadowed": {"train.jsonl": as_lines(["The Hub's."])},
    }
    return {name: hub.commit(name, contents) for name, contents in files.items()}


@pytest.fixture(scope="module")
def read(hub: Any, commits: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The documents of several addresses with their sources, or the error, read beside a folder `owner/shadowed`."""
    folder = tmp_path_factory.mktemp("read")
    (folder / "owner" / "shadowed").mkdir(parents=True)
    (folder / "owner" / "shadowed" / "train.jsonl").write_bytes(as_lines(["The folder's."]))
    finished = run(hub, folder, "-c", READ, *commits, "owner/configured:small", "owner/configured:small@test")
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout)


@pytest.mark.parametrize("name", ["owner/lines", "owner/columns", "owner/lists"])
def test_lines_and_parquet_are_streamed_as_they_were_written(read: dict[str, Any], name: str) -> None:
    assert read[name] == [[f"hub:{name}:{number}", novel] for number, novel in enumerate(NOVELS)]


def test_a_named_configuration_and_split_are_honoured(read: dict[str, Any]) -> None:
    addresses = [address for address in read if address.startswith("owner/configured")]
    found = {address: [text for _, texts in read[address] for text in texts] for address in addresses}
    assert found == {
        "owner/configured": ["Grande."],
        "owner/configured:small": ["Pequeño."],
        "owner/configured:small@test": ["Prueba.", "Otra."],
    }


@pytest.mark.parametrize("name", ["owner/lines", "owner/columns", "owner/lists", "owner/configured"])
def test_files_are_asked_for_at_the_commit_and_no_other_revision(
    hub: Any, commits: dict[str, str], read: dict[str, Any], name: str
) -> None:
    asked = [request for request in hub.requests if request.places.get("name") == name]
    assert {request.places["revision"] for request in asked if "path" in request.places} == {commits[name]}


def test_a_folder_with_the_name_of_the_data_set_is_not_read_in_its_place(read: dict[str, Any]) -> None:
    assert "hub source (owner/shadowed) must not have the name of a folder" in read["owner/shadowed"]


def test_documents_come_from_the_commit_in_the_fingerprint_and_a_new_commit_changes_it(
    hub: Any, tmp_path: Path
) -> None:
    first = hub.commit("owner/growing", {"train.jsonl": as_lines(["Antes."])})
    process = subprocess.Popen(
        [sys.executable, "-c", READ_AROUND_A_COMMIT],
        cwd=tmp_path,
        env=hub.environment(tmp_path / "home"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    fingerprint = process.stdout.readline().strip()
    second = hub.commit("owner/growing", {"train.jsonl": as_lines(["Después."])})
    output, errors = process.communicate("\n", timeout=240)
    assert process.returncode == 0, errors[-3000:]
    assert fingerprint == f"owner/growing {first}"
    assert json.loads(output) == [fingerprint, ["Antes."], f"owner/growing {second}", ["Después."]]


def test_a_repository_that_does_not_exist_is_one_line_of_error(hub: Any, tmp_path: Path) -> None:
    settings = ["--set=data.corpus=hub:owner/missing", f"--set=output.folder={tmp_path / 'run'}"]
    finished = run(hub, tmp_path, "-m", "hf_minilm.cli.main", "pretrain", *settings)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("hf-minilm: ")]
    assert len(lines) == 1
    assert "hub source (owner/missing) must be readable" in lines[0]
    assert "404" in lines[0]


def test_a_model_is_trained_on_a_data_set_of_the_hub(hub: Any, tmp_path: Path) -> None:
    stories = [document.text for document in World(("es",)).documents(150)]
    sha = hub.commit("owner/stories", {"data/train-00000-of-00001.parquet": as_parquet({"text": stories})})
    settings = {
        "data.corpus": "hub:owner/stories",
        "data.sequence_length": 48,
        "model.size": "tiny",
        "objective.next_sentence": "false",
        "training.budget": "2steps",
        "training.batch_rows": 4,
        "evaluation.rows": 8,
        "output.folder": tmp_path / "run",
    }
    words = [f"--set={name}={value}" for name, value in settings.items()]
    finished = run(hub, tmp_path, "-m", "hf_minilm.cli.main", "pretrain", *words)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout == (tmp_path / "run" / "report.txt").read_text(encoding="utf-8")
    facts = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["facts"]
    assert (facts["corpus"], facts["steps"]) == ("hub:owner/stories", 2)
    asked = [request for request in hub.requests if request.places.get("name") == "owner/stories"]
    assert {request.places["revision"] for request in asked if "path" in request.places} == {sha}
