"""A small corpus in a working folder, and work that is small enough to do in a second."""

import json

import pytest

from hf_minilm.benchmark import ours
from hf_minilm.benchmark.settings import BenchSettings
from hf_minilm.benchmark.work import TrainingWork
from hf_minilm.benchmark.working_folder import WorkingFolder, open_working_folder
from hf_minilm.data.world import World

VOCABULARY = 400


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A file of unequal paragraphs, a story each, four to a document."""
    path = tmp_path_factory.mktemp("corpus") / "stories.jsonl"
    stories = [story.text for story in World(["en"], seed=0).documents(240)]
    records = [{"paragraphs": stories[start : start + 4]} for start in range(0, len(stories), 4)]
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def folder(corpus, tmp_path_factory) -> WorkingFolder:
    settings = BenchSettings(corpus=str(corpus), vocabulary=VOCABULARY)
    return open_working_folder(settings, tmp_path_factory.mktemp("bench"))


@pytest.fixture
def small_work(monkeypatch):
    """Makes work of a maker and an objective; the memory of this process is left as it is."""
    monkeypatch.setattr(ours, "keep_freed_memory", lambda: False)

    def make(maker, objective, **changed):
        shape = {"vocab_size": VOCABULARY, "rows": 4, "length": 32, "warmup_steps": 1, "steps": 2}
        return TrainingWork(maker, objective, "tiny", **{**shape, "precision": "fp32", **changed})

    return make
