import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_minilm.training.recipe import (
    DataSettings,
    Recipe,
    TrainingSettings,
    describe_recipe,
    difference,
    load_recipe,
    recipe_from_dict,
    recipe_to_dict,
)
from hf_minilm.training.schedule import Budget

EXAMPLES = Path(__file__).parents[2] / "examples" / "recipes"
PAIRS = ["objective.name=pairs", "data.corpus=builtin:pairs"]
SECTIONS = ["model", "tokenizer", "data", "objective", "optimizer", "training", "evaluation", "output", "card"]


def message(*overrides: str) -> str:
    """The one line that refuses a recipe with these overrides."""
    with pytest.raises(ValueError, match=r" must ") as caught:
        load_recipe(None, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_recipe_is_the_main_job() -> None:
    recipe = load_recipe()
    assert recipe == Recipe() == recipe_from_dict({})
    assert (recipe.data.corpus, recipe.objective.name, recipe.objective.next_sentence) == (
        "builtin:world",
        "masked",
        True,
    )
    assert (recipe.model.preset, recipe.model.size) == ("modern", "tiny")
    assert recipe.training.budget == Budget("seconds", 220)
    assert recipe.output_folder == Path("runs/world")
    assert recipe.tokenizer_kind == "wordpiece"


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().training.seed = 3  # type: ignore[misc]


def test_a_file_holds_only_what_differs_and_overrides_win_over_it(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("training:\n  seed: 3\n  budget: 90s\noptimizer:\n")
    recipe = load_recipe(path, ["training.seed=4", "training.seed=5", "output.folder=somewhere/else"])
    assert list(difference(Recipe(), recipe).values()) == [
        "training.budget: 3min40s -> 1min30s",
        "training.seed: 0 -> 5",
        "output.folder: auto -> somewhere/else",
    ]
    assert difference(recipe, recipe) == {}


def test_each_optimizer_has_a_learning_rate_of_its_own_until_one_is_given() -> None:
    adamw = "optimizer.name=adamw"
    peaks = [
        load_recipe(None, words).optimizer.peak for words in ([], [adamw], [adamw, "optimizer.learning_rate=3e-4"])
    ]
    assert peaks == [5e-3, 2e-3, 3e-4]


def test_a_learning_rate_written_out_does_not_differ_from_the_auto_that_chooses_it() -> None:
    written = load_recipe(None, ["optimizer.learning_rate=5e-3"])
    assert difference(written, Recipe()) == {}
    assert list(difference(written, load_recipe(None, ["optimizer.name=adamw"])).values()) == [
        "optimizer.name: muon -> adamw",
        "optimizer.learning_rate: 0.005 -> 0.002",
    ]


@pytest.mark.parametrize(
    "override",
    [
        "training.budget=2.5Btokens",
        "training.budget=77",
        "training.save_every=never",
        "evaluation.every=5min",
        "data.corpus=[novels.jsonl.gz, 'builtin:world', año.txt]",
        "model.overrides={hidden_size: 60, position_embedding: alibi}",
        "training.micro_batch_rows=5",
        "optimizer.learning_rate=1e-4",
        "optimizer.epsilon=1.2345678901234567e-9",
        "optimizer.betas=[0, 0.5]",
        "optimizer.name=adamw",
        "output.trackers=[tensorboard]",
        "card.license=cc-by-sa-4.0",
        "card.languages=[es, quy, multilingual]",
    ],
)
def test_every_kind_of_value_survives_yaml_and_a_dictionary(override: str, tmp_path: Path) -> None:
    recipe = load_recipe(None, [override])
    assert recipe != Recipe()
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(recipe_to_dict(recipe), allow_unicode=True), encoding="utf-8")
    assert load_recipe(path) == recipe
    path.write_text(describe_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


NO_TEXTS = ["5e-3", "1e5", "08", "1_000", "no", "1:30", "~", "null", ".5", "2026-01-01", ".inf", "=", "a: b"]


@pytest.mark.parametrize("text", NO_TEXTS)
def test_a_text_that_looks_like_something_else_in_either_yaml_stays_a_text(text: str, tmp_path: Path) -> None:
    recipe = Recipe(data=DataSettings(corpus=(text, "novel.txt")))
    path = tmp_path / "again.yaml"
    path.write_text(describe_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["corpus"] == [text, "novel.txt"]


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("optimizer.lerning_rate=1", "optimizer.learning_rate"),
        ("training.learning_rate=1", "optimizer.learning_rate"),
        ("model.sise=tiny", "model.size"),
        ("optimizr.learning_rate=1", "optimizer"),
        ("mask_rate=0.2", "objective.mask_rate"),
        ("training.save=1", "training.save_every"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(override: str, meant: str) -> None:
    line = message(override)
    assert override.split("=")[0].split(".")[0] in line
    assert meant in line.split(";")[1]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.batch_rows=many", "training.batch_rows (many) must be a whole number;"),
        ("training.batch_rows=3.5", "training.batch_rows (3.5) must be a whole number;"),
        ("training.batch_rows=true", "training.batch_rows (true) must be a whole number;"),
        ("training.batch_rows=", "training.batch_rows (null) must be a whole number;"),
        ("tokenizer.lowercase=1", "tokenizer.lowercase (1) must be true or false;"),
        ("optimizer.weight_decay=.nan", "optimizer.weight_decay (.nan) must be a number;"),
        ("optimizer.weight_decay=1e999", "optimizer.weight_decay (.inf) must be a number;"),
        ("optimizer.weight_decay=1" + "0" * 309, "must be a number;"),
        ("optimizer.betas=[0.9]", "optimizer.betas ([0.9]) must be a list of two numbers;"),
        ("data.pair_fields=[en]", "data.pair_fields ([en]) must be a list of two texts;"),
        ("optimizer.schedule=cosin", "must be one of cosine, linear, wsd, noam, constant; did you mean cosine?"),
        ("optimizer.name=muom", "must be one of adamw, muon; did you mean muon?"),
        ("data.corpus=3", "data.corpus (3) must be text or a list of text;"),
        ("data.languages=[es, no]", "must be a list of one of es, en;"),
        ("tokenizer.vocab_size=large", "tokenizer.vocab_size (large) must be a whole number or auto;"),
        ("training.budget=5 minutes", "training.budget (5 minutes) must be an amount such as 20min, 1h30min"),
        ("training.budget=0", "training.budget (0) must be an amount such as"),
        ("training.save_every=sometimes", "or never;"),
        ("model.overrides=[1]", "model.overrides ([1]) must be names with values;"),
        ("model.overrides=[1", "must be valid YAML; line 1"),
        ("training.seed.x=3", "training.seed.x"),
        ("training=3", "override (training=3) must be section.field=value;"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_field_the_value_and_what_is_expected(override: str, expected: str) -> None:
    assert expected in message(override)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["training.batch_rows=0"], "training.batch_rows (0) must be at least 1"),
        (["training.keep_last=0"], "training.keep_last (0) must be at least 1"),
        (["training.seed=4294967296"], "training.seed (4294967296) must be at most 4294967295"),
        (["optimizer.warmup_share=1.5"], "optimizer.warmup_share (1.5) must be at most 1.0"),
        (["optimizer.learning_rate=0"], "optimizer.learning_rate (0.0) must be above 0.0"),
        (["optimizer.betas=[0.9, 1.0]"], "optimizer.betas ([0.9, 1.0]) must be below 1"),
        (["optimizer.betas=[-0.1, 0.5]"], "optimizer.betas (-0.1) must be at least 0"),
        (["optimizer.schedule=wsd", "optimizer.decay_share=0.99"], "(1.04) must be at most 1"),
        (["objective.mask_share=0.95"], "objective.mask_share + objective.random_share (1.05) must be at most 1"),
        (["training.micro_batch_rows=33"], "training.micro_batch_rows (33) must be at most training.batch_rows (16)"),
        (["training.processes=64"], "training.processes (64) must be at most training.batch_rows (16)"),
        (["tokenizer.kind=bytelevel_bpe"], "tokenizer.kind (bytelevel_bpe) must have a [MASK] token"),
        (
            ["objective.name=causal", "tokenizer.kind=wordpiece"],
            "tokenizer.kind (wordpiece) must have tokens for a text's",
        ),
        (["objective.name=causal", "tokenizer.kind=unigram"], "tokenizer.kind (unigram) must have tokens for a text's"),
        (["data.corpus=[]"], "data.corpus ('') must name at least one source"),
        (["data.languages=[]"], "data.languages ([]) must name at least one of es, en"),
        (["output.folder=''"], "output.folder ('') must be a path or auto"),
        (["objective.name=pairs"], "data.corpus (builtin:world) must hold pairs with objective.name pairs"),
        (["data.corpus=builtin:pairs"], "data.corpus (builtin:pairs) must hold texts with objective.name masked"),
        (["model.preset=vaswani2017"], "model.preset (vaswani2017) must be modern or bert with"),
        (["model.preset=gpt2"], "model.preset (gpt2) must be modern or bert with objective.name masked; change one"),
        ([*PAIRS, "model.preset=bert"], "model.preset (bert) must be modern or vaswani2017 with objective.name pairs"),
        ([*PAIRS, "tokenizer.kind=wordpiece"], "tokenizer.kind (wordpiece) must spell every text"),
        (["optimizer.schedule=noam", "optimizer.warmup_share=0"], "optimizer.warmup_share (0) must be above 0"),
        (["optimizer.name=muon", "optimizer.momentum=1"], "optimizer.momentum (1.0) must be below 1; try 0.95."),
        (["card.license=Apache 2.0"], "card.license (Apache 2.0) must be the Hub's name of a licence"),
        (["card.data_license=''"], "card.data_license () must be the Hub's name of a licence"),
        (["card.languages=[es, Spanish]"], "card.languages (Spanish) must be codes of ISO 639"),
        (["optimizer.name=muon", "optimizer.momentum=-0.1"], "optimizer.momentum (-0.1) must be at least 0.0"),
    ],
)
def test_a_number_out_of_range_or_a_contradiction_is_refused(overrides: list[str], expected: str) -> None:
    assert expected in message(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective.name=causal", "objective.mask_rate=0.2"],
        ["data.corpus=a.txt", "data.world_documents=5"],
        ["data.corpus=a.txt", "data.languages=[es]"],
        ["tokenizer.folder=mine", "tokenizer.vocab_size=500"],
        ["optimizer.name=adamw", "optimizer.momentum=0.9"],
        ["optimizer.decay_share=0.3"],
        ["optimizer.schedule=constant", "optimizer.final_share=0.1"],
        ["optimizer.schedule=noam", "optimizer.final_share=0.1"],
        ["objective.label_smoothing=0.1"],
        ["data.pair_fields=[en, es]"],
        ["objective.name=denoising", "evaluation.num_beams=2"],
        [*PAIRS, "objective.noise_share=0.2"],
        ["data.corpus=pairs.tsv", "objective.name=pairs", "data.world_documents=50"],
    ],
)
def test_a_setting_that_another_one_leaves_without_effect_is_refused(overrides: list[str]) -> None:
    line = message(*overrides)
    assert line.startswith(overrides[-1].split("=")[0])
    assert "where it has no effect; remove it." in line


def test_the_same_settings_are_taken_where_they_have_effect() -> None:
    recipe = load_recipe(
        None, ["objective.mask_rate=0.2", "data.corpus=[a.txt, 'builtin:world']", "data.languages=[es]"]
    )
    assert (recipe.objective.mask_rate, recipe.data.languages) == (0.2, ("es",))
    recipe = load_recipe(None, ["optimizer.schedule=wsd", "optimizer.decay_share=0.3", "optimizer.final_share=0.1"])
    assert (recipe.optimizer.decay_share, recipe.optimizer.final_share) == (0.3, 0.1)
    assert load_recipe(None, ["optimizer.name=muon", "optimizer.momentum=0.9"]).optimizer.momentum == 0.9
    load_recipe(None, ["objective.name=causal", "objective.next_sentence=false"])
    pairs = load_recipe(
        None, [*PAIRS, "objective.label_smoothing=0.1", "data.world_documents=50", "evaluation.num_beams=2"]
    )
    assert (pairs.objective.label_smoothing, pairs.data.world_documents, pairs.evaluation.num_beams) == (0.1, 50, 2)
    gaps = load_recipe(None, ["objective.name=denoising", "objective.span_length=2", "objective.label_smoothing=0.1"])
    assert (gaps.objective.span_length, gaps.objective.label_smoothing) == (2, 0.1)


def test_a_causal_recipe_needs_one_change_and_drops_what_is_masked_only() -> None:
    recipe = load_recipe(None, ["objective.name=causal"])
    assert recipe.tokenizer_kind == "bytelevel_bpe"
    assert not recipe.next_sentence
    assert Recipe().next_sentence


@pytest.mark.parametrize("overrides", [PAIRS, ["objective.name=denoising"]])
def test_a_recipe_of_an_encoder_decoder_needs_no_change_but_its_objective_and_pairs(overrides: list[str]) -> None:
    recipe = load_recipe(None, overrides)
    assert recipe.is_sequence_to_sequence
    assert recipe.tokenizer_kind == "bytelevel_bpe"
    assert not recipe.next_sentence
    assert not Recipe().is_sequence_to_sequence


def test_one_field_of_the_model_can_be_overridden_alone() -> None:
    recipe = load_recipe(None, ["model.overrides.hidden_size=60", "model.overrides.num_hidden_layers=3"])
    assert recipe.model.overrides == {"hidden_size": 60, "num_hidden_layers": 3}
    assert Recipe().model.overrides == {}


@pytest.mark.parametrize(
    ("corpus", "folder"),
    [
        ("builtin:docs", "runs/docs"),
        ("texts/novels.jsonl.gz", "runs/novels"),
        ("texts/", "runs/texts"),
        ("texts/*.txt", "runs/text"),
        ("owner/name", "runs/name"),
        ("[a/b.txt, c.txt]", "runs/b"),
    ],
)
def test_the_run_folder_is_named_after_the_corpus(corpus: str, folder: str) -> None:
    assert load_recipe(None, [f"data.corpus={corpus}"]).output_folder == Path(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "must be valid YAML; line"),
        ("training:\n  seed: 1\n  seed: 2\n", "seed is given twice"),
        ("- 1\n- 2\n", "must be sections with fields"),
        ("training: 3\n", "training (3) must be a section with fields"),
        ("!!python/object/apply:os.getcwd []", "must be valid YAML"),
        ("trainig:\n  seed: 1\n", "did you mean training?"),
        ("3: {}\n", "must be a field of a recipe"),
        ("training:\n  budget: " + "[" * 5000, "must be valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_with_one_line(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r" must ") as caught:
        load_recipe(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"recipe \(.*absent.yaml\) must be a YAML file"):
        load_recipe(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes("data: {corpus: año}".encode("latin-1"))
    with pytest.raises(ValueError, match="must be UTF-8 text; byte 16 is not"):
        load_recipe(tmp_path / "latin.yaml")


def test_an_empty_file_is_the_default_recipe(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_recipe(tmp_path / "empty.yaml") == Recipe()


def test_a_recipe_made_in_python_is_checked_too() -> None:
    assert Recipe(data=DataSettings(corpus=("a.txt",))).corpora == ("a.txt",)
    with pytest.raises(ValueError, match=r"training.log_every \(0\) must be at least 1"):
        Recipe(training=TrainingSettings(log_every=0))


def fields() -> list[tuple[str, "dataclasses.Field[Any]"]]:
    hints = typing.get_type_hints(Recipe)
    return [(section, item) for section in SECTIONS for item in dataclasses.fields(hints[section])]


def test_the_sections_stand_in_their_order_and_every_field_says_what_it_means() -> None:
    assert [item.name for item in dataclasses.fields(Recipe)] == SECTIONS
    for section, item in fields():
        meaning = item.metadata["help"]
        assert meaning[0].isupper(), f"{section}.{item.name}"
        assert meaning.endswith("."), f"{section}.{item.name}"


def test_the_description_is_the_default_recipe_with_every_field_explained() -> None:
    text = describe_recipe()
    tree = yaml.safe_load(text)
    assert [(section, name) for section, values in tree.items() for name in values] == [
        (section, item.name) for section, item in fields()
    ]
    assert max(map(len, text.splitlines())) <= 120
    assert "One of: cosine, linear, wsd, noam, constant." in text


def test_the_example_of_the_main_job_is_the_default_recipe_as_it_describes_itself() -> None:
    path = EXAMPLES / "world.yaml"
    assert load_recipe(path) == Recipe()
    assert path.read_text(encoding="utf-8").endswith("\n\n" + describe_recipe())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_recipe_is_valid_and_says_nothing_that_is_a_default(path: Path) -> None:
    recipe = load_recipe(path)
    if path.stem == "world":
        return
    given = {f"{section}.{name}" for section, values in yaml.safe_load(path.read_text()).items() for name in values}
    assert given == set(difference(Recipe(), recipe))


def test_the_example_recipes_are_there() -> None:
    names = {"world", "causal", "translate", "text_encoder", "text_decoder"}
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} >= names


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "modern"),
        (["objective.next_sentence=false"], "modern"),
        (["objective.name=causal"], "modern_decoder"),
        (["objective.name=causal", "model.preset=gpt2"], "gpt2"),
        (["objective.name=denoising"], "modern"),
    ],
)
def test_the_modern_architecture_of_a_decoder_is_another_than_that_of_an_encoder(
    overrides: list[str], expected: str
) -> None:
    assert load_recipe(None, overrides).preset == expected


def test_a_path_below_the_home_is_written_with_a_tilde_and_leads_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    recipe = load_recipe(None, ["output.folder=/home/somebody/run", "data.corpus=[/home/somebody/a.txt, /home/b.txt]"])
    assert recipe.output.folder == "~/run"
    assert recipe.output_folder == Path("/home/somebody/run")
    assert recipe.corpora == ("~/a.txt", "/home/b.txt")
    assert load_recipe(None, ["output.folder=/home/somebodyelse"]).output.folder == "/home/somebodyelse"
