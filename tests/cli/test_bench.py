"""`hf-minilm bench` from the command line: a whole small run, and a user's mistakes."""

import json
import os
import subprocess
import sys

import pytest

from hf_minilm.cli.main import main
from hf_minilm.data.world import World

SMALL = ["--size=tiny", "--rounds=1", "--steps=2", "--rows=4", "--length=32", "--vocabulary=400"]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("\n\n\n".join(story.text for story in World(["en"], seed=0).documents(120)), encoding="utf-8")
    return path


def refusal(capsys, *words):
    assert main(["bench", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_whole_run_prints_a_table_writes_all_figures_and_reports_who_died(corpus, tmp_path):
    words = ["causal", *SMALL, "--peers=llama", "--set-peer=optim=no_such_optimizer", "--set=training.compile=no"]
    places = [f"--corpus={corpus}", f"--folder={tmp_path / 'bench'}", f"--output={tmp_path / 'figures.json'}"]
    finished = subprocess.run(
        [sys.executable, "-m", "hf_minilm.cli.main", "bench", *words, *places],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "HF_MINILM_CACHE": str(tmp_path / "cache")},
    )
    assert finished.returncode == 1, finished.stderr
    lines = finished.stdout.splitlines()
    assert any(line.startswith("llama tuned died in round 1: ValueError") for line in map(str.strip, lines))
    assert any(line.startswith("ours ") for line in lines)
    written = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert written["machine"]["name"] in lines[0]
    assert written["settings"]["peers"] == ["llama"]
    contest = written["contests"]["causal"]
    assert len(contest["matrix_rates"]) == 1
    ours, peer, dead = (contest["contestants"][name] for name in ("ours", "llama", "llama tuned"))
    assert "error" in dead["rounds"][0]
    for each in (ours, peer):
        (figures,) = each["rounds"]
        assert figures["tokens"] == 2 * 4 * 32 * (1 - figures["padding_share"])
        assert figures["peak_memory"] > figures["memory_before"] > 0
        assert 0 < each["mfu"]["median"] < 1
    ratio = ours["tokens_per_second"]["median"] / peer["tokens_per_second"]["median"]
    assert peer["tokens_per_second_ratio"] == {key: pytest.approx(ratio) for key in ("min", "median", "max")}


def test_the_contests_are_listed(capsys):
    assert main(["bench", "--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["masked_next_sentence", "masked", "causal", "memory", "encode", "generate", "utilisation"]


def test_an_unknown_contest_is_answered_with_the_nearest_one(capsys):
    line = refusal(capsys, "encod")
    assert line.startswith("hf-minilm: contest (encod) must be one of")
    assert line.endswith("did you mean encode?")


@pytest.mark.parametrize(
    "words",
    [
        ["--size=large"],
        ["--steps=0"],
        ["--set=training.budget=5"],
        ["--set-peer=nonsense"],
        ["--corpus=nowhere.txt"],
        ["--output=nowhere/figures.json"],
    ],
)
def test_a_mistake_is_one_line(capsys, words):
    value = words[0].partition("=")[2].split("=")[0]
    assert value in refusal(capsys, "causal", *words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["causal", "--set=foo"], "override (foo) must be section.field=value; "),
        (
            ["causal", "--set=model.sizze=tiny"],
            "model.sizze (tiny) must be a field of a recipe; did you mean model.size?",
        ),
        (["masked", "causal", "--set=objective.mask_rate=0.2"], "objective.mask_rate (0.2) must stay 0.3 with "),
        (["utilisation", "--set=model.overrides.hiden_size=64"], "hiden_size"),
        (["encode", "--set=training.compile=no"], "--set (training.compile=no) must have a contest of training"),
        (
            ["causal", "--peers=llama", "--peers=gtp2"],
            "--peers (gtp2) must be words of a peer's name; choose from gpt2, ",
        ),
        (["causal", "memory", "--peers=llama padded"], "--peers (llama padded) must be words of a peer's name; "),
    ],
)
def test_a_setting_or_a_peer_that_is_none_is_refused_before_the_corpus_is_opened(capsys, words, expected):
    assert expected in refusal(capsys, *words, "--corpus=nowhere.txt")


@pytest.mark.parametrize(
    "words",
    [
        ["masked", "--set=objective.mask_rate=0.2", "--peers=bert padded"],
        ["masked", "encode", "--rows=64", "--set=training.micro_batch_rows=33", "--peers=bf16"],
    ],
)
def test_a_setting_and_a_peer_of_one_contest_are_taken(capsys, words):
    assert "nowhere.txt" in refusal(capsys, *words, "--corpus=nowhere.txt")


def test_the_command_line_brings_the_bench_only_when_it_is_asked_for():
    script = "import sys, hf_minilm.cli.main; print(*[name for name in sys.modules if 'benchmark' in name])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not any(name.startswith("hf_minilm.benchmark") for name in finished.stdout.split())
