"""A card says what the recipe and the results say, in the Hub's form, and no more."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from hf_minilm import MiniLMConfig
from hf_minilm.cli.main import main
from hf_minilm.data.world_probes import PHENOMENA
from hf_minilm.evaluation.intervals import wilson_interval
from hf_minilm.evaluation.language_model import HeldOut
from hf_minilm.evaluation.minimal_pairs import PairAccuracy
from hf_minilm.evaluation.report import Report, RunFacts
from hf_minilm.evaluation.samples import FilledMask, GeneratedText
from hf_minilm.evaluation.translation import Translation, TranslationScores
from hf_minilm.evaluation.world_floor import MaskedFloor
from hf_minilm.hub.card import describe, save_run_card, write_card
from hf_minilm.hub.folder import write_folder
from hf_minilm.hub.record import Record, Statements, parameters, read_record
from hf_minilm.training.pretrain import claim_folder
from hf_minilm.training.recipe import load_recipe

FACTS = RunFacts("masked + next sentence", "builtin:world", 1200, 19_660_800, 754.2, 3_400_123, "NVIDIA H200")
LINE = "El perro que perseguía al gato [MASK]."
MASKED = Report(
    FACTS,
    HeldOut(1.0234, 0.61, 40_123, 0.11, 0.957, 0.513, 1_234),
    MaskedFloor(0.6012, 1.0345, 512, 48, 0.0071, 1.0, 0.12, 0.953, 43),
    "runs/first/model",
    "fill-mask",
    probes=(PairAccuracy("number_agreement", 2, 66, 0.75, 0.634, 0.838),),
    filled=(FilledMask(LINE, ("duerme",), (("duerme", 0.713),)),),
)
CAUSAL = replace(MASKED, floor=0.75, task="text-generation", texts=(GeneratedText("Ana", " saw."),), filled=())
PAIRS = replace(
    MASKED,
    held_out=HeldOut(0.25, 0.12, 4_321, None, None, None, 0),
    floor=None,
    task="translation",
    probes=(),
    filled=(),
    scores=(TranslationScores(4, 2_000, 91.234, 83.45, 0.5678, "nrefs:1|nc:6", "nrefs:1|tok:13a"),),
    translations=(Translation("Las llaves son viejas.", "The keys are old.", "The keys."),),
)
EVALUATION = {
    "schema": 1,
    "command": "hf-minilm evaluate model pairs:agreement_en",
    "results": {
        "pairs:agreement_en": {
            "accuracy": {"value": 0.71, "low": 0.70, "high": 0.72, "n": 46_000, "counted": "pairs", "unit": "share"},
            "accuracy/anaphor": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 20, "counted": "pairs", "unit": "share"},
            "undefined": {"value": None, "low": None, "high": None, "n": 0, "counted": "pairs", "unit": "share"},
        }
    },
}
CONFIG = MiniLMConfig(num_hidden_layers=4, hidden_size=128, num_key_value_heads=2, vocab_size=2_000)


@pytest.fixture
def record(trained_run: Path) -> Any:
    """Make a record of a class and a report, whose weights are the small run's."""

    def build(report: Report | None, class_name: str, *settings: str, **fields: Any) -> Record:
        config = {**CONFIG.to_dict(), "architectures": [class_name]}
        recipe = load_recipe(None, settings)
        plain = None if report is None else report.to_json()
        return Record("mine", trained_run / "model", config, recipe=recipe, report=plain, **fields)

    return build


def results(card: ModelCard) -> dict[tuple[str, str | None], Any]:
    """The results as the Hub reads them out of the card's text, by metric and its configuration."""
    read = ModelCard(str(card)).data.eval_results
    assert read is not None
    return {(each.metric_type, each.metric_config): each for each in read}


def test_the_metadata_holds_every_result_with_its_interval(record: Any) -> None:
    card = write_card(describe(record(MASKED, "MiniLMForPreTraining", evaluation=EVALUATION), repo_id="ana/mine"))
    found = results(card)
    assert {key: each.metric_value for key, each in found.items()} == {
        ("loss", None): 1.0234,
        ("bits_per_byte", None): 0.61,
        ("accuracy", "next_sentence"): 0.957,
        ("loss", "sample"): 1.0345,
        ("accuracy", "number_agreement-2"): 0.75,
        ("accuracy", None): 0.71,
    }
    assert found["accuracy", "number_agreement-2"].metric_args == {"low": 0.634, "high": 0.838, "n": 66}
    assert found["accuracy", None].metric_args == {"low": 0.70, "high": 0.72, "n": 46_000}
    low, high = wilson_interval(0.957 * 1_234, 1_234)
    assert found["accuracy", "next_sentence"].metric_args == {"low": round(low, 6), "high": round(high, 6), "n": 1_234}
    assert found["loss", None].metric_args == {"n": 40_123}
    assert {each.task_type for each in found.values()} == {"fill-mask"}
    assert card.data.model_name == "mine"


def test_the_text_shows_the_same_results(record: Any) -> None:
    text = write_card(describe(record(MASKED, "MiniLMForPreTraining", evaluation=EVALUATION))).text
    loss = "loss, nats per predicted token, 30 % masked"
    assert f"| {loss} | 1.023 |  | 40,123 tokens |  |" in text
    assert f"| {loss}, on a sample | 1.034 |  | 512 tokens | least possible 0.601 |" in text
    note = "number of the verb; chance 50 %"
    assert f"| number agreement, distance 2 | 75.0% | 63.4% to 83.8% | 66 pairs | {note} |" in text
    assert "| accuracy | 71.0% | 70.0% to 72.0% | 46,000 pairs |  |" in text
    assert "anaphor" not in text
    assert "it was written by `hf-minilm evaluate model pairs:agreement_en`." in text
    assert "1,200 steps, 19,660,800 tokens, 12.6 minutes on NVIDIA H200" in text


def test_a_masked_loss_says_how_much_was_masked_and_others_do_not(record: Any) -> None:
    text = write_card(describe(record(MASKED, "MiniLMForPreTraining", "objective.mask_rate=0.125"))).text
    for name in ("loss, nats per predicted token, 12.5 % masked", "bits per byte, 12.5 % masked"):
        assert f"| {name} |" in text
    assert "| 12.5 % masked; always the commoner answer 51.3% |" in text
    text = write_card(describe(record(CAUSAL, "MiniLMForCausalLM", "objective.name=causal"))).text
    assert "| loss, nats per predicted token |" in text
    assert "masked |" not in text


def test_each_suite_is_followed_by_how_it_was_measured_each_sentence_once(record: Any) -> None:
    guess = "held out is what a training on this text alone holds out by default, 5 %"
    figures = {"loss": {"value": 2.5, "n": 90, "counted": "tokens", "unit": "nats"}}
    evaluation = {
        "results": {**EVALUATION["results"], "validation:a.txt": figures},
        "suites": {
            "validation:a.txt": {"notes": ["15 % masked", guess, "15 % masked"]},
            "pairs:agreement_en": {"notes": ["the first 100 of 2,000", "a | b"]},
        },
    }
    text = write_card(describe(record(MASKED, "MiniLMForPreTraining", evaluation=evaluation))).text
    pairs, validation = (
        text.split(f"**{name}**")[1].split("**")[0] for name in ("pairs:agreement_en", "validation:a.txt")
    )
    assert pairs.endswith("46,000 pairs |  |\n\n- the first 100 of 2,000\n- a \\| b\n\n")
    assert f"90 tokens |  |\n\n- 15 % masked\n- {guess}\n\n" in validation
    assert text.count("- 15 % masked") == 1


@pytest.mark.parametrize("name", PHENOMENA)
def test_a_probe_is_named_with_what_it_asks_and_how_often_a_guess_is_right(record: Any, name: str) -> None:
    figure = {"value": 0.75, "low": 0.7, "high": 0.8, "n": 200, "counted": "probes", "unit": "share"}
    evaluation = {"results": {"probes:en": {name: figure}, "pairs:a.tsv": {"accuracy": figure}}}
    rows = write_card(describe(record(None, "MiniLMForMaskedLM", evaluation=evaluation))).text.splitlines()
    (row,) = (row for row in rows if row.startswith(f"| {name.replace('_', ' ')} |"))
    asked = {1: f"number of the {PHENOMENA[name].role}", 2: f"gender of the {PHENOMENA[name].role}"}
    assert row.endswith(f"| {asked.get(PHENOMENA[name].feature, 'first or second sense')}; chance 50 % |")
    assert sum("chance" in row for row in rows) == 1


def test_longer_texts_are_said_to_be_unmeasured_only_where_nothing_else_was_measured(record: Any) -> None:
    def limits(**fields: Any) -> str:
        return write_card(describe(record(MASKED, "MiniLMForPreTraining", **fields))).text.split("and its limits")[1]

    assert "rows of 128 tokens; longer texts were not measured." in limits()
    assert "rows of 128 tokens.\n" in limits(evaluation=EVALUATION)


def test_a_card_says_that_the_run_had_another_text_before_and_derives_nothing_from_the_last_one(record: Any) -> None:
    text = write_card(describe(record(MASKED, "MiniLMForPreTraining", fingerprints=("one", "two")))).text
    head, training, rest = text.split("\n## How")[0], *text.split("\n## Training")[1].split("\n## Train it again")
    assert "grammar of its own, and before that on another text or another part of it." in head
    assert "| Other text | before that on another text or another part of it, not named here |" in training
    assert "12.6 minutes on NVIDIA H200, all texts together |" in training
    assert "| Licence of the text | not stated |" in training
    assert "| Languages | not stated |" in training
    assert "Its text was generated" not in text
    assert LINE not in text
    assert "This model cannot be trained again from what lies here" in rest
    assert "holds every setting" not in rest
    assert "**builtin:world (5% held out at the end)**" in training
    rows = [row for row in training.splitlines() if row.startswith(("| loss,", "| bits", "| next"))]
    assert len(rows) == 4
    assert all(row.endswith("some of it may have been trained on |") for row in rows)
    assert "| least possible 0.601; some of it may have been trained on |" in rows[-1]
    several = write_card(describe(record(MASKED, "MiniLMForPreTraining", fingerprints=("one", "two", "three")))).text
    assert "and before that on 2 other texts or parts of it." in several
    known = write_card(describe(record(MASKED, "MiniLMForPreTraining", fingerprints=("one",)))).text
    assert known == write_card(describe(record(MASKED, "MiniLMForPreTraining"))).text


def test_a_run_that_went_on_with_another_text_says_so_as_does_its_push_and_checkpoints_have_their_own_recipe(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))
    run, other = tmp_path / "run", tmp_path / "other.jsonl"
    shutil.copytree(trained_run, run)
    lines = (trained_run.parent / "stories.jsonl").read_text(encoding="utf-8").splitlines()
    other.write_text("\n".join(reversed(lines)) + "\n", encoding="utf-8")
    changes = {"output.folder": run, "data.corpus": other, "training.budget": "6steps", "card.license": "mit"}
    words = [f"--set={name}={value}" for name, value in changes.items()]
    assert main(["pretrain", str(run / "recipe.yaml"), "--accept-changes", *words]) == 0
    record = read_record(run)
    text = write_card(describe(record, repo_id="ana/run")).text
    assert "on `other.jsonl`, and before that on another text or another part of it, in English." in text
    write_folder(describe(record, repo_id="ana/run"), tmp_path / "pushed")
    assert write_card(describe(read_record(tmp_path / "pushed"), repo_id="ana/run")).text == text
    report = json.loads((tmp_path / "pushed" / "report.json").read_text(encoding="utf-8"))
    assert report["facts"]["corpus"] == "other.jsonl (the last of 2 texts)"
    heads = {}
    for checkpoint in record.checkpoints:
        described = describe(read_record(checkpoint), repo_id="ana/run")
        heads[checkpoint.name] = write_card(described).text.split("\n## How")[0]
        assert described.statements.license == "mit"  # stated later, of all of the run
    assert "on `stories.jsonl`, in English." in heads["checkpoint-4"]
    assert "on `other.jsonl`, and perhaps on another text or another part of it, in" in heads["checkpoint-6"]
    assert "Its loss on held-out text, some of which may have been trained on, is" in heads["checkpoint-6"]
    state = run / "checkpoints" / "checkpoint-6" / "training_state.json"  # as of versions that kept the first recipe
    shutil.copyfile(state.parents[1] / "checkpoint-4" / state.name, state)
    for checkpoint in record.checkpoints:
        text = write_card(describe(read_record(checkpoint))).text
        assert "on `stories.jsonl`, and perhaps on another text or another part of it, in" in text


def test_a_checkpoint_whose_recipe_is_none_is_refused(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint-4"
    state = json.loads((checkpoint / "training_state.json").read_text(encoding="utf-8"))
    for recipe in ({"data": {"korpus": "a.txt"}}, ["data"]):
        (checkpoint / "training_state.json").write_text(json.dumps({**state, "recipe": recipe}), encoding="utf-8")
        with pytest.raises(
            ValueError, match=r"recipe of the checkpoint \(.*checkpoint-4\) must be one of this version"
        ):
            read_record(checkpoint)
    del state["recipe"]
    (checkpoint / "training_state.json").write_text(json.dumps(state), encoding="utf-8")
    assert read_record(checkpoint).recipe == read_record(tmp_path / "run").recipe


def measured_of(run: Path, name: str, **differences: Any) -> dict[str, Any]:
    """An `evaluation.json` of a run's model, with one suite of that name."""
    own = {"class": read_record(run).class_name, "parameters": parameters(run / "model"), **differences}
    return {"model": own, "results": {name: EVALUATION["results"]["pairs:agreement_en"]}}


def test_what_was_measured_beside_the_model_counts_before_what_lies_in_the_run(
    trained_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    for folder, name in ((run, "pairs:old"), (run / "model", "pairs:new")):
        (folder / "evaluation.json").write_text(json.dumps(measured_of(trained_run, name)), encoding="utf-8")
    for folder in (run, run / "model"):
        assert list((read_record(folder).evaluation or {})["results"]) == ["pairs:new"]
    (run / "model" / "evaluation.json").unlink()
    assert list((read_record(run).evaluation or {})["results"]) == ["pairs:old"]


@pytest.mark.parametrize(("name", "value"), [("class", "MiniLMForCausalLM"), ("parameters", 1_234)])
def test_what_was_measured_of_another_model_is_refused(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: Any
) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    measured = json.dumps(measured_of(trained_run, "pairs:old", **{name: value}))
    shutil.copytree(trained_run / "model", tmp_path / "alone")
    (tmp_path / "alone" / "recipe.yaml").unlink()
    for folder in (tmp_path / "run", tmp_path / "alone"):
        (folder / "evaluation.json").write_text(measured, encoding="utf-8")
        assert main(["card", str(folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"evaluation.json, of a model whose {name} is {value}) must be of the model beside it" in line


def test_a_finished_run_that_goes_on_forgets_what_was_measured_of_it(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    (run / "evaluation.json").write_text("{}", encoding="utf-8")

    def claim(*settings: str) -> None:
        claim_folder(load_recipe(run / "recipe.yaml", settings), run, accept_changes=True)

    claim("card.license=mit")  # of the same model
    assert (run / "evaluation.json").exists()
    claim("training.budget=9steps")
    assert not (run / "evaluation.json").exists()
    assert not (run / "report.txt").exists()


def test_a_model_of_sentence_embeddings_opens_as_one_from_what_is_pushed(trained_run: Path, tmp_path: Path) -> None:
    pooled = tmp_path / "pooled"
    first = Transformer(str(trained_run / "model"))
    pooling = Pooling(first.get_embedding_dimension(), pooling_mode="max")
    model = SentenceTransformer(modules=[first, pooling, Normalize()], device="cpu")
    model.save_pretrained(str(pooled))
    (pooled / "1_Pooling" / "notes.txt").write_text("-", encoding="utf-8")
    left_out = write_folder(describe(read_record(pooled), repo_id="ana/pooled"), tmp_path / "pushed")
    assert left_out == ["1_Pooling/notes.txt"]
    text = ["The dog in the garden sees two keys."]
    pushed = SentenceTransformer(str(tmp_path / "pushed"), device="cpu")
    assert [type(module).__name__ for module in pushed] == ["Transformer", "Pooling", "Normalize"]
    assert pushed.encode(text).tolist() == model.encode(text).tolist()


def test_what_nobody_stated_is_left_out_and_the_text_says_so(record: Any) -> None:
    card = write_card(describe(record(MASKED, "MiniLMForPreTraining", "data.corpus=letters.txt")))
    data = yaml.safe_load(str(card).split("---")[1])
    assert not {"license", "language", "base_model", "datasets"} & set(data)
    assert "| Licence of the model | not stated |" in card.text
    assert "| Licence of the text | not stated |" in card.text
    assert "No licence was stated" in card.text


def test_what_is_stated_is_taken_from_the_options_before_the_recipe(record: Any) -> None:
    settings = ("data.corpus=letters.txt", "card.license=mit", "card.data_license=cc-by-4.0", "card.languages=[es, qu]")
    described = describe(
        record(MASKED, "MiniLMForPreTraining", *settings),
        statements=Statements(license="apache-2.0", base_model="owner/base"),
    )
    card = write_card(described)
    assert (card.data.license, card.data.language, card.data.base_model) == ("apache-2.0", ["es", "qu"], "owner/base")
    assert "| Licence of the text | cc-by-4.0 |" in card.text
    assert "No licence was stated" not in card.text
    assert "in Spanish and `qu`" in card.text


def test_of_built_in_and_hub_corpora_is_said_what_is_known(record: Any) -> None:
    card = write_card(describe(record(MASKED, "MiniLMForPreTraining", "data.languages=[en]")))
    assert card.data.language == "en"
    assert "| Licence of the text | apache-2.0 |" in card.text
    assert "license" not in card.data.to_dict()  # the model's is not the text's
    card = write_card(describe(record(MASKED, "MiniLMForPreTraining", "data.corpus=hub:owner/letters:small@train")))
    assert card.data.datasets == ["owner/letters"]
    assert "[owner/letters](https://huggingface.co/datasets/owner/letters)" in card.text
    assert {each.dataset_type for each in results(card).values()} == {"owner/letters", "minimal_pairs"}


@pytest.mark.parametrize(
    ("report", "class_name", "settings", "tag"),
    [
        (MASKED, "MiniLMForMaskedLM", (), "fill-mask"),
        (CAUSAL, "MiniLMForCausalLM", ("objective.name=causal",), "text-generation"),
        (
            PAIRS,
            "MiniLMForConditionalGeneration",
            ("objective.name=pairs", "data.corpus=builtin:pairs"),
            "translation",
        ),
        (None, "MiniLMForConditionalGeneration", ("objective.name=denoising",), "text2text-generation"),
        (None, "MiniLMForSequenceClassification", (), "text-classification"),
        (None, "MiniLMForTokenClassification", (), "token-classification"),
        (None, "MiniLMForMultipleChoice", (), "multiple-choice"),
        (None, "MiniLMForNextSentencePrediction", (), "text-classification"),
        (None, "MiniLMModel", (), "feature-extraction"),
    ],
)
def test_each_kind_of_model_has_its_task_and_a_way_to_load_it(
    record: Any, report: Report | None, class_name: str, settings: tuple[str, ...], tag: str
) -> None:
    card = write_card(describe(record(report, class_name, *settings), repo_id="ana/mine"))
    assert card.data.pipeline_tag == tag
    blocks = [block.split("```")[0] for block in card.text.split("```python\n")[1:]]
    assert len(blocks) == 2
    assert [("import hf_minilm" in block, "trust_remote_code=True" in block) for block in blocks] == [
        (False, True),
        (True, False),
    ]
    assert blocks[0].count("from_pretrained(") == blocks[0].count(
        '.from_pretrained("ana/mine", trust_remote_code=True)'
    )
    for block in blocks:
        compile(block, "card", "exec")
        assert '"ana/mine"' in block


def test_the_lines_of_python_run_as_they_stand(
    trained_run: Path, capsys: pytest.CaptureFixture[str], translator: Path
) -> None:
    for folder in (trained_run, translator):
        described = describe(read_record(folder), repo_id="ana/mine")
        block = write_card(described).text.split("```python\n")[2].split("```")[0]
        exec(block.replace("ana/mine", str(described.record.model_folder)), {})
    assert "token_str" in capsys.readouterr().out


@pytest.mark.parametrize("is_written_out", [False, True])
def test_the_lines_of_python_mask_as_the_models_own_tokenizer_does(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], is_written_out: bool
) -> None:
    shutil.copytree(trained_run / "model", tmp_path / "model")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        path = tmp_path / "model" / file
        path.write_text(path.read_text(encoding="utf-8").replace("[MASK]", "<hidden>"), encoding="utf-8")
    if is_written_out:  # as other libraries and earlier versions of transformers do
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["mask_token"] = {"__type": "AddedToken", "content": "<hidden>", "special": True}
        path.write_text(json.dumps(settings), encoding="utf-8")
    described = describe(read_record(tmp_path / "model"), repo_id="ana/mine")
    block = write_card(described).text.split("```python\n")[2].split("```")[0]
    assert "<hidden>" in block
    exec(block.replace("ana/mine", str(tmp_path / "model")), {})
    assert "token_str" in capsys.readouterr().out


def test_sentences_of_a_text_are_quoted_only_if_it_is_built_in(record: Any) -> None:
    assert LINE in write_card(describe(record(MASKED, "MiniLMForPreTraining"))).text
    assert LINE not in str(write_card(describe(record(MASKED, "MiniLMForPreTraining", "data.corpus=letters.txt"))))


def test_the_command_trains_again_with_what_is_published(record: Any) -> None:
    text = write_card(describe(record(MASKED, "MiniLMForPreTraining", "data.corpus=/data/letters.txt"))).text
    assert "```bash\nhf-minilm pretrain recipe.yaml\n```" in text
    assert "It looks for its text under `letters.txt`" in text
    assert "Its budget is a time" in text
    text = write_card(describe(record(MASKED, "MiniLMForPreTraining", "training.budget=5steps", processes=2))).text
    assert "torchrun --standalone --nproc_per_node 2 -m hf_minilm.cli.main pretrain recipe.yaml" in text
    assert "Its budget is a time" not in text


def test_native_twins_are_named_where_there_are_any(record: Any) -> None:
    ours = record(MASKED, "MiniLMForMaskedLM")
    assert "Native twins" not in write_card(describe(ours)).text
    config = MiniLMConfig.preset("modern", "tiny").to_dict() | {"architectures": ["MiniLMForMaskedLM"]}
    text = write_card(describe(replace(ours, config=config))).text
    assert "can become `modernbert` of transformers itself" in text
    assert "hf-minilm export your-name/mine OUT --to modernbert" in text


def test_a_run_leaves_a_card_with_its_curve_beside_the_model(trained_run: Path) -> None:
    folder = trained_run / "model"
    card = ModelCard.load(folder / "README.md")
    assert card.data.language == "en"  # from the recipe
    assert card.data.eval_results is not None
    assert (folder / "loss.png").read_bytes() == (trained_run / "loss.png").read_bytes()
    assert "](loss.png)" in card.text
    assert load_recipe(folder / "recipe.yaml").output.folder == "stories"
    before = (folder / "README.md").read_bytes()
    save_run_card(trained_run)
    assert (folder / "README.md").read_bytes() == before
    report = json.loads((trained_run / "report.json").read_text(encoding="utf-8"))
    assert parameters(folder) == report["facts"]["parameters"]


def test_what_the_recipe_states_of_a_finished_run_may_be_stated_later(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "again"
    shutil.copytree(trained_run, run)
    words = [f"--set={setting}" for setting in (f"output.folder={run}", "card.license=mit")]
    assert main(["pretrain", str(run / "recipe.yaml"), *words]) == 0
    assert "finished before" in capsys.readouterr().out
    assert ModelCard.load(run / "model" / "README.md").data.license == "mit"


def test_a_finished_run_that_goes_on_has_no_card_before_it_is_finished_again(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "longer"
    shutil.copytree(trained_run, run)
    (run / "report.txt").unlink()  # as `pretrain` does with a larger budget
    for folder in (run, run / "model"):
        with pytest.raises(ValueError, match=r"must be finished, and has no report.txt; go on with it"):
            read_record(folder)


def test_a_model_that_was_pushed_has_the_same_card_where_it_is_pushed_from_again(
    trained_run: Path, tmp_path: Path
) -> None:
    described = describe(read_record(trained_run), repo_id="ana/stories")
    write_folder(described, tmp_path / "pushed")
    again = describe(read_record(tmp_path / "pushed"), repo_id="ana/stories")
    assert str(write_card(again)) == str(write_card(described))
    left_out = write_folder(again, tmp_path / "again")
    assert left_out == []
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "pushed").iterdir()
    }


def test_cards_of_several_runs_are_written_with_one_command(
    trained_run: Path, translator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", str(trained_run), str(translator), "--output", str(tmp_path), "--license", "mit"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "stories.md"), str(tmp_path / "translator.md")]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "stories.md",
        "stories.png",
        "stories.yaml",
        "translator.md",
    ]
    text = (tmp_path / "stories.md").read_text(encoding="utf-8")
    assert "](stories.png)" in text
    assert "hf-minilm pretrain stories.yaml" in text
    assert load_recipe(tmp_path / "stories.yaml").corpora == ("stories.jsonl",)
    assert str(trained_run.parent) not in text
    assert ModelCard.load(tmp_path / "translator.md").data.license == "mit"
    assert main(["card", str(trained_run), str(trained_run / "model"), "--output", str(tmp_path)]) == 2
    assert "name of a run (stories) must be given once" in capsys.readouterr().err
