"""What is said of a text before a run, what of it the report leaves out, and that neither breaks a run at its end."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from hf_minilm.data.pairs import PairCorpus
from hf_minilm.data.tokenizer import load_tokenizer, train_tokenizer
from hf_minilm.data.world import World
from hf_minilm.training.preparation import Data, prepare_data
from hf_minilm.training.pretrain import pretrain
from hf_minilm.training.recipe import Recipe, recipe_from_dict

Sections = dict[str, dict[str, Any]]
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
COMMON: Sections = {
    "model": {"overrides": SMALL},
    "training": {"budget": "2steps", "batch_rows": 2, "save_every": "never"},
    "evaluation": {"every": "never", "rows": 4},
}


def recipe(folder: Path, sections: Sections) -> Recipe:
    """Make a small recipe whose run and stores lie in a folder."""
    places: Sections = {"data": {"cache_folder": str(folder / "cache")}, "output": {"folder": str(folder / "run")}}
    names = {*COMMON, *places, *sections}
    return recipe_from_dict({name: COMMON.get(name, places.get(name, {})) | sections.get(name, {}) for name in names})


def prepare(folder: Path, sections: Sections) -> Data:
    return prepare_data(recipe(folder, sections), folder, quiet=False)


def report_of(folder: Path, sections: Sections) -> dict[str, Any]:
    """Run a recipe, and give the figures of its report."""
    pretrain(recipe(folder, sections))
    return json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))


def with_positions(number: int) -> dict[str, Any]:
    """Give the model a table of so many positions: a text beyond it is refused."""
    return {"overrides": {**SMALL, "position_embedding": "learned", "max_position_embeddings": number}}


def test_pairs_that_are_too_long_to_learn_from_are_not_translated_and_the_report_says_so(tmp_path: Path) -> None:
    lines = [f"{'uno ' * (60 if number % 5 == 0 else 3)}{number}\tone {number}" for number in range(400)]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
    sections: Sections = {
        "objective": {"name": "pairs"},
        "model": {"preset": "vaswani2017", **with_positions(32)},
        "data": {"corpus": str(tmp_path / "pairs.tsv"), "sequence_length": 32, "validation_share": 0.2},
        "tokenizer": {"vocab_size": 300},
        "evaluation": {"num_beams": 1},
    }
    data = prepare(tmp_path, sections)
    assert isinstance(data.corpus, PairCorpus)
    held_out = [(pair.source, pair.target) for pair in data.corpus.pairs("validation")]
    fitting = [pair for pair in held_out if len(pair[0].split()) < 60]
    assert 0 < len(fitting) < len(held_out)
    assert data.held_out_pairs(10_000) == fitting
    assert data.held_out_pairs(5) == [fitting[len(fitting) * each // 5] for each in range(5)]
    report = report_of(tmp_path, sections)
    assert report["scores"][0]["number"] == len(fitting)
    number = len(held_out) - len(fitting)
    assert report["notes"] == [f"{number} held-out pairs longer than data.sequence_length are in no figure"]
    assert report["notes"][0] in (tmp_path / "run" / "report.txt").read_text(encoding="utf-8")


def test_sentences_and_minimal_pairs_beyond_the_models_positions_are_left_out_of_a_report_aloud(
    tmp_path: Path,
) -> None:
    sections: Sections = {
        "model": with_positions(12),
        "data": {"world_documents": 60, "sequence_length": 12},
        "objective": {"next_sentence": False},
    }
    report = report_of(tmp_path, sections)
    left_out, pairs = report["notes"]
    assert left_out.startswith(f"{3 - len(report['filled'])} sentences with masks left out below")
    assert pairs.startswith(f"{600 - sum(cell['number'] for cell in report['probes'])} minimal pairs left out below")


def test_sentences_with_gaps_beyond_the_encoders_positions_are_left_out_of_a_report_aloud(tmp_path: Path) -> None:
    sections: Sections = {
        "model": {"preset": "vaswani2017", **with_positions(12)},
        "data": {"world_documents": 60, "sequence_length": 12},
        "objective": {"name": "denoising"},
    }
    report = report_of(tmp_path, sections)
    assert f"{3 - len(report['translations'])} sentences with gaps left out below" in report["notes"][0]


def test_a_causal_run_with_a_tokenizer_that_has_no_begin_token_ends_with_a_report(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(World(("en",)).documents(100), kind="bytelevel_bpe", vocab_size="auto")
    tokenizer.bos_token = None
    tokenizer.save_pretrained(tmp_path / "own")
    assert load_tokenizer(tmp_path / "own").bos_token_id is None
    sections: Sections = {
        "objective": {"name": "causal"},
        "data": {"world_documents": 60},
        "tokenizer": {"folder": str(tmp_path / "own")},
    }
    assert len(report_of(tmp_path, sections)["texts"]) == 2


def ideographs(folder: Path) -> str:
    """Write texts in which each of 1,500 ideographs stands 20 times."""
    mixed = [chr(0x4E00 + number) for number in range(1_500)] * 20
    random.Random(0).shuffle(mixed)
    texts = ["".join(mixed[first : first + 50]) + "。" for first in range(0, len(mixed), 50)]
    (folder / "text.txt").write_text("\n\n\n".join(texts), encoding="utf-8")
    return str(folder / "text.txt")


def test_unknown_tokens_are_said_with_what_has_next_to_none_whether_a_store_is_built_or_reused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sections: Sections = {
        "data": {"corpus": ideographs(tmp_path)},
        "objective": {"next_sentence": False},
        "tokenizer": {"vocab_size": 1_005},  # the special tokens and a thousand characters
    }
    said = r"^3\d\.\d% of the tokens are unknown \(\[UNK\]\); tokenizer.kind=unigram has next to none$"
    # Characters that more of the held-out texts have stand in fewer of the others.
    noted = r"\d\d\.\d% of the held-out tokens are unknown \(\[UNK\]\), whose text bits per byte leaves out; .*unigram"
    for _ in range(2):
        data = prepare(tmp_path, sections)
        assert len(re.findall(said, capfd.readouterr().err, re.MULTILINE)) == 1
        assert len(data.notes) == 1
        assert re.match(noted, data.notes[0])
    for kind in ("unigram", "wordpiece"):
        folder = tmp_path / kind
        folder.mkdir()
        assert prepare(folder, {**sections, "tokenizer": {"kind": kind}}).notes == ()
        assert "are unknown" not in capfd.readouterr().err


@pytest.mark.parametrize("budget", ["8steps", "1000steps", "40000tokens", "2min"])
@pytest.mark.parametrize("objective", ["causal", "pairs"])
def test_the_amount_of_text_is_said_once_and_how_often_a_budget_reads_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], budget: str, objective: str
) -> None:
    corpus = "builtin:world" if objective == "causal" else "builtin:pairs"
    sections: Sections = {
        "objective": {"name": objective},
        "model": {"preset": "vaswani2017" if objective == "pairs" else "modern"},
        "data": {"corpus": corpus, "world_documents": 60},
        "training": {"budget": budget, "batch_rows": 3},
    }
    data = prepare(tmp_path, sections)
    (line,) = re.findall(r"^text to train on: .*$", capfd.readouterr().err, re.MULTILINE)
    assert f" tokens in 60 {'documents' if objective == 'causal' else 'pairs'}" in line
    if budget == "2min":
        assert "epochs" not in line
        return
    positions = data.train.rows_in_epoch(0) * data.train.positions_per_row
    read = {"8steps": 24 * data.train.positions_per_row, "1000steps": 3_000 * data.train.positions_per_row}
    (number,) = re.findall(rf"; a budget of {budget} is about ([\d.,]+) epochs \(readings of all of it\)$", line)
    assert float(number.replace(",", "")) == pytest.approx(read.get(budget, 40_000) / positions, rel=0.05)


def test_nothing_is_said_by_other_processes_than_the_main_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prepare_data(recipe(tmp_path, {"data": {"world_documents": 60}}), tmp_path, quiet=True).notes == ()
    assert capfd.readouterr().err == ""
