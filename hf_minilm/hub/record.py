"""What is known about a model that is to be published: its files, its recipe, and what was measured of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from ..data.best_prediction import MASK
from ..evaluation.run_corpus import RECIPE_FILE
from ..model.configuration_minilm import MiniLMConfig
from ..model.configuration_minilm_seq2seq import MiniLMSeq2SeqConfig
from ..training.checkpoint import STATE_FILE, checkpoint_step, list_checkpoints
from ..training.metrics import read_metrics
from ..training.pretrain import REPORT_FILE
from ..training.recipe import CardSettings, Recipe, check_languages, check_license, load_recipe

MODEL_TYPES = (MiniLMConfig.model_type, MiniLMSeq2SeqConfig.model_type)
EVALUATION_FILE = "evaluation.json"
CURVE_FILE = "loss.png"
CARD_FILE = "README.md"


@dataclass(frozen=True)
class Statements:
    """What only a person can say of a model, and no run can measure.

    Attributes:
        license: Of the model; None leaves it unsaid.
        data_license: Of the text that it was trained on, likewise.
        languages: ISO 639 codes; none leaves them to the corpus.
        base_model: The Hub's name of the model that this one was made from; None for one trained from initial weights.

    Raises:
        ValueError: If one is not written as the Hub writes it.
    """

    license: str | None = None
    data_license: str | None = None
    languages: tuple[str, ...] = ()
    base_model: str | None = None

    def __post_init__(self) -> None:
        check_license("license", self.license)
        check_license("data license", self.data_license)
        check_languages("language", self.languages)
        check_hub_name("base model", self.base_model)

    def over(self, settings: CardSettings) -> "Statements":
        """Return these statements, and a recipe's where nothing is said here."""
        return replace(
            self,
            license=self.license or settings.license,
            data_license=self.data_license or settings.data_license,
            languages=self.languages or settings.languages,
        )


def check_hub_name(what: str, name: str | None) -> None:
    """Make sure that a model on the Hub can have a name.

    Args:
        what: What it is the name of, for the error.
        name: As `owner/name`; None leaves it unsaid.

    Raises:
        ValueError: If none can.
    """
    if name is None:
        return
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"{what} ({name}) must be a model's name on the Hub, as owner/name; correct it.") from error


@dataclass(frozen=True)
class Record:
    """A model's folder and what lies around it.

    Attributes:
        name: What a person calls the model: the run folder's name, or the model folder's.
        model_folder: Weights, configuration, tokenizer and code.
        config: The configuration as it is written there.
        recipe: That of the run; None for a model of which only the folder is known.
        report: `report.json` of the run.
        evaluation: `evaluation.json`, as `hf-minilm evaluate` writes it; None where there is none.
        metrics: The lines of `metrics.jsonl`.
        curve: The picture of the losses.
        checkpoints: The checkpoints kept, the newest last.
        processes: Processes that trained together.
        step: For a checkpoint, its step; None for the finished model.
    """

    name: str
    model_folder: Path
    config: dict[str, Any]
    recipe: Recipe | None = None
    report: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    curve: Path | None = None
    checkpoints: tuple[Path, ...] = ()
    processes: int = 1
    step: int | None = None

    @property
    def class_name(self) -> str:
        """The class that was saved."""
        return str((self.config.get("architectures") or ["MiniLMModel"])[0])

    @property
    def is_built_in(self) -> bool:
        """Whether all that it was trained on is this project's own text, and may be quoted."""
        return self.recipe is not None and all(name.startswith("builtin:") for name in self.recipe.corpora)

    @property
    def mask_token(self) -> str:
        """What stands for a hidden token in a text, by the tokenizer beside the model."""
        token = (_read_json(self.model_folder / "tokenizer_config.json") or {}).get("mask_token") or MASK
        return str(token["content"] if isinstance(token, Mapping) else token)


def read_record(path: Path) -> Record:
    """Read a run's folder, a model's, or a checkpoint's.

    Args:
        path: A folder with `recipe.yaml` and `model/`, or one with `config.json`. A run's `model/` and `checkpoints/`
            belong to the run; beside a model that was pushed lies what is known of it.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no model of this package, or a run that is not finished.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"model ({path}) must be the folder of a run or of a model; check the path.")
    path = path.resolve()
    if (path / "config.json").is_file():
        if path.parent.name == "checkpoints" and (path.parents[1] / RECIPE_FILE).is_file():
            return read_checkpoint(_read_run(path.parents[1], path), path)
        if path.name == "model" and (path.parent / RECIPE_FILE).is_file():
            return _read_finished_run(path.parent)
        if (path / RECIPE_FILE).is_file():  # as it was pushed
            return _read_run(path, path)
        evaluation = _read_json(path / EVALUATION_FILE)
        return Record(path.name, path, _read_config(path), evaluation=evaluation)
    if not (path / RECIPE_FILE).is_file():
        raise ValueError(f"model ({path}) must hold config.json, or recipe.yaml and model/; give another folder.")
    return _read_finished_run(path)


def read_checkpoint(record: Record, checkpoint: Path) -> Record:
    """Return the record of a run's checkpoint: without what was measured of the finished model."""
    return replace(
        record,
        model_folder=checkpoint,
        config=_read_config(checkpoint),
        report=None,
        evaluation=None,
        checkpoints=(),
        step=checkpoint_step(checkpoint),
    )


def _read_finished_run(run: Path) -> Record:
    # A finished run that went on has lost its report, and its recipe is no longer that of its model.
    for name in ("model/config.json", REPORT_FILE):
        if not (run / name).is_file():
            raise ValueError(f"run ({run}) must be finished, and has no {name}; go on with it, or give a checkpoint.")
    return _read_run(run, run / "model")


def _read_run(run: Path, model: Path) -> Record:
    checkpoints = list_checkpoints(run / "checkpoints")
    state = _read_json(checkpoints[-1] / STATE_FILE) if checkpoints else None
    found = (_read_json(folder / EVALUATION_FILE) for folder in (run, model))
    return Record(
        name=run.name,
        model_folder=model,
        config=_read_config(model),
        recipe=load_recipe(run / RECIPE_FILE),
        report=_read_json(run / "report.json"),
        evaluation=next((evaluation for evaluation in found if evaluation is not None), None),
        metrics=read_metrics(run / "metrics.jsonl"),
        curve=run / CURVE_FILE if (run / CURVE_FILE).is_file() else None,
        checkpoints=tuple(checkpoints),
        processes=(state or {}).get("processes", 1),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    config = _read_json(folder / "config.json") or {}
    if config.get("model_type") not in MODEL_TYPES:
        raise ValueError(
            f"model ({folder}, a {config.get('model_type')}) must be one of this package; push others with hf upload."
        )
    return config


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"file ({path}) must be JSON; write it again ({error}).") from error
    if not isinstance(value, Mapping):
        raise ValueError(f"file ({path}) must hold names with values; write it again.")
    return dict(value)
