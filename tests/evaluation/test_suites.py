"""Suites: how they are named, what each gives, and that the Python interface is enough."""

import json

import pytest

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.evaluation.evaluation_result import UNITS
from hf_minilm.evaluation.suites import SUITES, EvaluationSettings, check_suites, evaluate_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def files(tmp_path, world):
    folder = tmp_path / "private folder"
    folder.mkdir()
    stories = "\n\n\n".join(story.text for story in world.documents(20))
    (folder / "stories.txt").write_text(stories, encoding="utf-8")
    (folder / "number.txt").write_text("The keys is old.\nThe keys are old.\n", encoding="utf-8")
    return folder


def test_one_call_measures_several_suites_and_its_json_has_no_folder_in_it(tiny_model, word_tokenizer, files):
    model = tiny_model(MiniLMForPreTraining, word_tokenizer)
    text = f"{files}/stories.txt"
    kinds = ["heldout", "validation", "pseudo-perplexity", "next-sentence"]
    suites = [*(f"{kind}:{text}" for kind in kinds), f"pairs:{files}/number.txt", "probes:en"]
    said = []
    settings = EvaluationSettings(limit=2, length=64, training_text=text)
    evaluation = evaluate_model(model, word_tokenizer, suites, settings=settings, name="mine", say=said.append)
    written = evaluation.to_json()
    labels = [*(f"{kind}:stories.txt" for kind in kinds), "pairs:number.txt", "probes:en"]
    assert list(written["results"]) == list(written["suites"]) == said == labels
    headlines = [next(iter(figures)) for figures in written["results"].values()]
    assert headlines == ["loss", "loss", "pseudo_loss", "accuracy", "macro_accuracy", "number_agreement"]
    for figures in written["results"].values():
        for figure in figures.values():
            assert figure["unit"] in UNITS
            assert figure["n"] > 0
            assert figure["low"] is None or figure["low"] <= figure["value"] <= figure["high"]
    assert "private" not in json.dumps(written)
    assert written["model"] == {
        "name": "mine",
        "class": "MiniLMForPreTraining",
        "parameters": model.num_parameters(),
        "vocabulary": len(word_tokenizer),
    }
    assert "gender_agreement" not in written["results"]["probes:en"]  # Spanish alone has it
    assert written["results"]["probes:en"]["number_agreement/distance_2"]["n"] == 2


def test_the_same_call_gives_the_same_figures(tiny_model, word_tokenizer, files):
    model = tiny_model(MiniLMForMaskedLM, word_tokenizer)
    suites = [f"heldout:{files}/stories.txt", f"pairs:{files}/number.txt"]
    runs = [evaluate_model(model, word_tokenizer, suites).to_json()["results"] for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_causal_model_has_no_pseudo_perplexity(tiny_model, byte_tokenizer, files):
    model = tiny_model(MiniLMForCausalLM, byte_tokenizer)
    with pytest.raises(ValueError, match=r"MiniLMForCausalLM\) must be a masked one"):
        evaluate_model(model, byte_tokenizer, [f"pseudo-perplexity:{files}/stories.txt"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"suites \(none\) must be at least one of heldout:TEXT, .*spans:FILES; name one"),
        (["helduot:a.txt"], r"suite \(helduot:a\.txt\) must be one of heldout:TEXT, .*; try heldout"),
        (["pairs"], r"suite \(pairs\) must say on what to measure; write pairs:FILES"),
        (["pairs:a/x.txt", "pairs:b/x.txt"], r"suites \(pairs:x\.txt\) must differ in more than folders"),
    ],
)
def test_a_wrong_suite_is_one_line_that_lists_them(words, message):
    with pytest.raises(ValueError, match=message):
        check_suites(words)


@pytest.mark.parametrize(
    ("chosen", "words", "message"),
    [
        ({"scoring": "masked"}, ["probes"], r"--scoring \(masked\) must be read by a suite.* or name pairs:FILES\."),
        ({"training_text": "a"}, ["spans:a"], r"--training-text \(a\) must be read by a suite.* or name pairs:FILES\."),
        ({"language": "de"}, ["heldout:a"], r"--language \(de\) must be read by a suite.* or name spans:FILES\."),
        ({"length": 64}, ["pseudo-perplexity:a"], r"--length \(64\) must .* heldout:TEXT or validation:TEXT or next"),
    ],
)
def test_a_setting_that_no_suite_reads_is_refused_and_the_suites_that_do_are_named(chosen, words, message):
    with pytest.raises(ValueError, match=message):
        check_suites(words, chosen=chosen)


def test_a_setting_that_one_of_the_suites_reads_passes():
    chosen = {"scoring": "masked", "language": "de", "length": 64, "training_text": "a", "seed": 1, "limit": 2}
    assert check_suites(["pairs:x/a", "spans:a", "heldout:a"], chosen=chosen) == ("pairs:a", "spans:a", "heldout:a")


def test_known_suites_pass_and_each_says_what_it_measures():
    check_suites(["probes", *(f"{kind}:a" for kind in SUITES if kind != "probes")])
    assert all(suite.description for suite in SUITES.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 0}, r"limit \(0\) must be at least 1"),
        ({"length": 0}, r"length \(0\) must be at least 8; give --length a larger number"),
        ({"scoring": "psycho"}, r"scoring \(psycho\) must be one of auto, masked"),
        ({"language": "xx"}, r"language \(xx\) must be one of en, es, de, hi"),
        ({"training_text": "nowhere.txt"}, r"nowhere\.txt\) must be a file, folder or glob that exists"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_at_the_start(settings, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        EvaluationSettings(**settings)
