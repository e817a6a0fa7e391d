"""What a run held out is what its own recipe says, wherever the model is measured."""

import json
from pathlib import Path

import pytest

from hf_minilm import MiniLMForMaskedLM
from hf_minilm.data.corpus import Corpus
from hf_minilm.evaluation.run_corpus import (
    corpus_with,
    find_recipe,
    keep_fingerprints,
    refuse_another_corpus,
    trained_fingerprints,
)
from hf_minilm.evaluation.suites import EvaluationSettings, evaluate_model
from hf_minilm.training.preparation import open_corpus
from hf_minilm.training.recipe import describe_recipe, load_recipe

SETTINGS = ("data.validation_share=0.3", "training.seed=5")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def files(tmp_path, world):
    """Two files of one name, and a third."""
    stories = [story.text for story in world.documents(120)]
    for number, name in enumerate(["one/a.txt", "two/a.txt", "two/b.txt"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n\n\n".join(stories[number * 40 : (number + 1) * 40]), encoding="utf-8")
    return tmp_path


@pytest.fixture
def write_run(tmp_path):
    def write_run(*sources, settings=()):
        corpus = json.dumps([str(source) for source in sources])
        recipe = load_recipe(None, [f"data.corpus={corpus}", *settings])
        (tmp_path / "run" / "model").mkdir(parents=True)
        (tmp_path / "run" / "recipe.yaml").write_text(describe_recipe(recipe), encoding="utf-8")
        return recipe

    return write_run


def held_out_texts(source, folder):
    corpus, words = corpus_with(str(source), find_recipe(folder))
    assert words.endswith("and its version may have trained on some of that")
    return [document.text for document in corpus.held_out_of(Corpus([str(source)]))]


def test_of_several_sources_the_one_that_is_asked_for_gives_what_the_run_holds_out_of_it(files, write_run):
    recipe = write_run(files / "one", "builtin:world", files / "two", settings=SETTINGS)
    expected = [document.text for document in open_corpus(recipe).documents("validation")]
    folder = files / "run" / "model"
    for source in ("one/a.txt", "two/a.txt", "two", "two/*.txt"):
        named = "".join(path.read_text(encoding="utf-8") for path in files.glob(source) if path.is_file())
        named = named or "".join(path.read_text(encoding="utf-8") for path in (files / source).iterdir())
        texts = held_out_texts(files / source, folder)
        assert texts == [text for text in expected if text in named]
        assert 0 < len(texts) < 40
    stories = held_out_texts("builtin:world", folder)
    assert stories == expected[: len(stories)]
    assert len(stories) == 6000


def test_the_suite_measures_what_the_run_holds_out_and_says_so(files, write_run, tiny_model, word_tokenizer):
    recipe = write_run(files / "one", files / "two", settings=SETTINGS)
    tiny_model(MiniLMForMaskedLM, word_tokenizer).save_pretrained(files / "run" / "model")
    model = MiniLMForMaskedLM.from_pretrained(files / "run" / "model")
    named = (files / "two" / "a.txt").read_text(encoding="utf-8")
    texts = [document.text for document in open_corpus(recipe).documents("validation") if document.text in named]
    (files / "expected.txt").write_text("\n\n\n".join(texts), encoding="utf-8")
    suites = [f"validation:{files}/two/a.txt", f"heldout:{files}/expected.txt"]
    settings = EvaluationSettings(length=64)
    measured, expected = evaluate_model(model, word_tokenizer, suites, settings=settings).suites.values()
    assert measured.figures == expected.figures
    assert "held out is what that run would hold out of it now" in " ".join(measured.notes)


def test_a_recipe_is_found_beside_a_finished_model_a_checkpoint_and_in_a_folder_that_was_pushed(files, write_run):
    write_run(files / "one")
    recipe = files / "run" / "recipe.yaml"
    (files / "run" / "checkpoints" / "step-4").mkdir(parents=True)
    (files / "run" / "other").mkdir()
    for folder in ("run/model", "run/checkpoints/step-4", "run"):
        assert find_recipe(files / folder) == recipe.resolve()
    for folder in (files / "run" / "other", files / "two", None):
        assert find_recipe(folder) is None


def test_the_runs_own_recipe_counts_before_the_one_that_is_published_with_its_model(files, write_run):
    write_run(files / "one", settings=SETTINGS)
    published = describe_recipe(load_recipe(None, ["data.corpus=one"]))
    (files / "run" / "model" / "recipe.yaml").write_text(published, encoding="utf-8")
    expected = open_corpus(load_recipe(files / "run" / "recipe.yaml")).documents("validation")
    assert held_out_texts(files / "one", files / "run" / "model") == [document.text for document in expected]


def test_where_the_run_is_not_known_the_words_say_that_5_percent_is_a_guess(files, write_run):
    write_run(files / "one")
    recipe = files / "run" / "recipe.yaml"
    source = str(files / "two" / "a.txt")
    assert corpus_with(source, None) == (
        None,
        "held out is what a training on this text alone holds out by default, 5 %, as no recipe.yaml lies beside the "
        "model",
    )
    assert corpus_with(source, recipe)[1].endswith("as the recipe.yaml beside the model does not name it")
    (files / "one").rename(files / "elsewhere")
    assert corpus_with(source, recipe)[1].endswith("as the corpus of the recipe.yaml beside the model is not here")


def test_a_recipe_without_settings_has_their_defaults(tmp_path):
    (tmp_path / "recipe.yaml").write_text("output:\n  folder: runs/x\n", encoding="utf-8")
    corpus, _ = corpus_with("builtin:world", tmp_path / "recipe.yaml")
    assert corpus.fingerprint() == open_corpus(load_recipe(None)).fingerprint()


def test_the_words_say_whether_the_corpus_is_the_one_that_was_trained_on(files, write_run):
    write_run(files / "one")
    run, source = files / "run", str(files / "one")
    fingerprint = Corpus([source]).fingerprint()
    with pytest.raises(ValueError, match=r"must have corpus\.json: the version that made it held other documents out"):
        refuse_another_corpus(run, fingerprint)
    keep_fingerprints(run, [fingerprint])
    known = "held out is what the run of the recipe.yaml beside the model held out of it"
    assert corpus_with(source, run / "recipe.yaml")[1] == known
    refuse_another_corpus(run, fingerprint)
    for fingerprints in (["of another"], ["of another", fingerprint]):
        keep_fingerprints(run, fingerprints)
        assert corpus_with(source, run / "recipe.yaml")[1].endswith("some may have been trained on")
        with pytest.raises(ValueError, match=r"must be those that the run in .* was trained on, and are others"):
            refuse_another_corpus(run, fingerprint)


@pytest.mark.parametrize(
    "text", ["", "[]", "[1]", "{}", '{"fingerprints": []}', '{"fingerprints": [1]}', "\0", "[" * 9999]
)
def test_fingerprints_that_are_none_are_refused_with_what_to_do(tmp_path, text):
    assert trained_fingerprints(tmp_path) == []
    (tmp_path / "corpus.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"corpus.json must hold the run's fingerprints; delete it"):
        trained_fingerprints(tmp_path)


def test_settings_that_are_no_runs_are_one_line_and_a_share_in_powers_of_ten_is_read(files, write_run):
    write_run(files / "one")
    recipe, source = files / "run" / "recipe.yaml", str(files / "one")
    for data in ("{corpus: 5}", "{corpus: [{a: b}]}", f"{{corpus: {source}, validation_share: [1]}}"):
        recipe.write_text(f"data: {data}", encoding="utf-8")
        with pytest.raises(ValueError, match=r"must have a run's settings of data; put the run's own back"):
            corpus_with(source, recipe)
    recipe.write_text(f"data: {{corpus: {source}, validation_share: 1e-2}}", encoding="utf-8")
    corpus, _ = corpus_with(source, recipe)
    assert corpus.fingerprint() == Corpus([source], validation_share=0.01).fingerprint()


def test_a_source_that_is_half_of_the_run_and_a_broken_recipe_are_refused(files, write_run):
    write_run(files / "two" / "a.txt")
    recipe = Path(files / "run" / "recipe.yaml")
    with pytest.raises(ValueError, match=r"two in the corpus of the model's run \(1 of 2\) must be all; name"):
        corpus_with(str(files / "two"), recipe)
    for text, message in (
        ("data: [", r"must be valid YAML"),
        ("- a", r"must be sections with fields"),
        ("data: 1", r"must hold sections"),
    ):
        recipe.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            corpus_with(str(files / "two"), recipe)
