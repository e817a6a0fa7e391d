"""A card says what the recipe and the results say, in the Hub's form, and no more."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_minilm import MiniLMConfig
from hf_minilm.cli.main import main
from hf_minilm.evaluation.intervals import wilson_interval
from hf_minilm.evaluation.language_model import HeldOut
from hf_minilm.evaluation.minimal_pairs import PairAccuracy
from hf_minilm.evaluation.report import Report, RunFacts
from hf_minilm.evaluation.samples import FilledMask, GeneratedText
from hf_minilm.evaluation.translation import Translation, TranslationScores
from hf_minilm.evaluation.world_floor import MaskedFloor
from hf_minilm.hub.card import describe, save_run_card, write_card
from hf_minilm.hub.card_sections import parameters
from hf_minilm.hub.folder import write_folder
from hf_minilm.hub.record import Record, Statements, read_record
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
    assert "| loss, nats per predicted token | 1.023 |  | 40,123 tokens |  |" in text
    assert "| loss, nats per predicted token, on a sample | 1.034 |  | 512 tokens | least possible 0.601 |" in text
    assert "| number agreement, distance 2 | 75.0% | 63.4% to 83.8% | 66 pairs | chance 50 % |" in text
    assert "| accuracy | 71.0% | 70.0% to 72.0% | 46,000 pairs |  |" in text
    assert "anaphor" not in text
    assert "it was written by `hf-minilm evaluate model pairs:agreement_en`." in text
    assert "1,200 steps, 19,660,800 tokens, 12.6 minutes on NVIDIA H200" in text


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
    assert parameters(read_record(trained_run)) == report["facts"]["parameters"]


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
