"""A recipe that was written to harm, and the words of a command line, cost one line and exit code 2."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_minilm.cli.main import main

LAUGHS = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (98 + n, 98 + n, 97 + n, 97 + n) for n in range(20))
FILES: dict[str, bytes] = {
    "bad UTF-8": b"training:\n  seed: \xff",
    "UTF-16": "training: {}".encode("utf-16"),
    "NUL": b"training:\0 {}",
    "list": b"- training",
    "text": b"training",
    "number": b"9" * 5000,
    "cut off": b"training: {seed: [",
    "aliases without end": LAUGHS,
    "an alias": b"data: &a {}\nmodel: *a",
    "a thousand brackets": b"training: " + b"[" * 5_000,
    "a thousand indents": b"".join(b" " * n + b"a:\n" for n in range(1_200)),
    "very many keys": b"training: {" + b",".join(b"a%d: 1" % n for n in range(40_000)) + b"}",
    "a key given very often": b"training: {" + b"a: 1, " * 40_000 + b"}",
    "two million bytes": b"# " + b"x" * 2_000_000,
    "python object": b"training: !!python/object/apply:os.system ['touch ran']",
    "python name": b"training: !!python/name:os.system",
    "bytes": b"data: {corpus: !!binary aGFsbG8=}",
    "timestamp that is none": b"training: {seed: !!timestamp x}",
    "truth that is none": b"training: {seed: !!bool x}",
    "number that is none": b"training: {seed: !!int ''}",
    "float that is none": b"training: {seed: !!float ''}",
    "set": b"training: !!set {a, b}",
    "pairs": b"training: !!pairs [a: 1]",
    "key that is a list": b"? [a]\n: b",
    "key that is a number": b"1: {}",
    "key that is null": b"~: {}",
    "two documents": b"training: {}\n---\ntraining: {}",
    "unknown tag": b"training: !evil x",
    "recursive": b"training: &a [*a]",
}
SETTINGS = (
    "training.seed=-1",
    "training.seed=1e400",
    "training.seed=" + "9" * 5000,
    "training.seed=.nan",
    "training.seed=true",
    "training.seed=[1]",
    "training.batch_rows=0",
    "training.batch_rows=many",
    "training.budget=-5steps",
    "training.budget=1e999steps",
    "training.budget=nan",
    "training.budget=1d" + " " * 5000 + "x",
    "training.budget=" + "9" * 5000 + "steps",
    "training.keep_last=0",
    "optimizer.learning_rate=.inf",
    "optimizer.learning_rate=.nan",
    "optimizer.learning_rate=-1",
    "optimizer.betas=[0.9]",
    "optimizer.betas=[0.9, .nan]",
    "data.corpus=",
    "data.corpus=[]",
    "data.corpus=3",
    'data.corpus="a\\0b.txt"',
    'data.corpus="a\\x1b[2J.txt"',
    'output.folder="a\\0b"',
    'output.folder="a\\nb"',
    'output.folder="\\ud800"',
    "output.folder=" + "x" * 5000,
    "output.folder=/dev/null",
    "output.folder=/proc/self/nowhere",
    'tokenizer.folder="\\0"',
    "tokenizer.folder=/dev/null",
    "tokenizer.folder=../../../../../../etc",
    "tokenizer.folder=" + "x" * 5000,
    "tokenizer.vocab_size=" + "9" * 5000,
    "data.sequence_length=" + "9" * 30,
    "data.languages=[xx]",
    "data.validation_share=1",
    "data.cache_folder=3",
    "model.overrides=3",
    "model.overrides.vocab_size.x=3",
    "model.overrides={3: 4}",
    "model.overrides.hidden_size=999999999999",
    "model.overrides.num_hidden_layers=1000000",
    "model.size=../base",
    "no.such=1",
    "=",
    "training",
    "training.seed",
    "\0",
    "." * 5000 + "=1",
    "data.corpus=hub:../../etc",
    "data.corpus=https://user:secret@example.org/corpus.txt",
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def assert_refused(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    before = sorted(Path.cwd().rglob("*"))
    assert main(["pretrain", *words]) == 2
    refusals = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]
    assert len(refusals) == 1
    assert len(refusals[0]) < 2_100
    assert refusals[0].isprintable()
    made = {path for path in Path.cwd().rglob("*") if path not in before and path.is_file()}
    assert {path.name for path in made} <= {"recipe.yaml", "run.lock", "corpus.json"}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_recipe_is_one_line(case: str, bounded: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.yaml").write_bytes(FILES[case])
    with bounded(seconds=10, megabytes=200):
        assert_refused(capsys, "recipe.yaml")
    assert not Path("ran").exists()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: ascii(setting[:40]))
def test_a_setting_that_cannot_be_is_one_line(
    setting: str, bounded: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    with bounded(seconds=10, megabytes=200):
        assert_refused(capsys, f"--set={setting}")


@pytest.mark.parametrize("name", ["pipe", "folder", "/dev/zero", "nul\0", "x" * 5000])
def test_what_is_no_file_is_no_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    Path("folder").mkdir()
    assert_refused(capsys, name)
