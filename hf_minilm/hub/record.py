"""What is known about a model that is to be published: its files, its recipe, and what was measured of it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from safetensors import SafetensorError, safe_open

from ..data.best_prediction import MASK
from ..evaluation.evaluation_result import EVALUATION_FILE
from ..evaluation.run_corpus import RECIPE_FILE, trained_fingerprints
from ..model.configuration_minilm import MiniLMConfig
from ..model.configuration_minilm_seq2seq import MiniLMSeq2SeqConfig
from ..training.checkpoint import STATE_FILE, checkpoint_step, list_checkpoints
from ..training.metrics import read_metrics
from ..training.pretrain import REPORT_FILE
from ..training.recipe import CardSettings, Recipe, check_languages, check_license, load_recipe, recipe_from_dict

MODEL_TYPES = (MiniLMConfig.model_type, MiniLMSeq2SeqConfig.model_type)
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
        fingerprints: Of the texts that it was trained on, one after the other; none where they are not known. Of a
            checkpoint, those that it may have been trained on.
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
    fingerprints: tuple[str, ...] = ()
    step: int | None = None

    @property
    def class_name(self) -> str:
        """The class that was saved."""
        return str((self.config.get("architectures") or ["MiniLMModel"])[0])

    @property
    def is_built_in(self) -> bool:
        """Whether all that it was trained on is this project's own text, and may be quoted."""
        if self.recipe is None or self.num_earlier_texts:
            return False
        return all(name.startswith("builtin:") for name in self.recipe.corpora)

    @property
    def num_earlier_texts(self) -> int:
        """How many texts, or parts of a text, it was trained on before that of its recipe; no file names them."""
        return max(0, len(self.fingerprints) - 1)

    @property
    def mask_token(self) -> str:
        """What stands for a hidden token in a text, by the tokenizer beside the model."""
        token = (_read_json(self.model_folder / "tokenizer_config.json") or {}).get("mask_token") or MASK
        return str(token["content"] if isinstance(token, Mapping) else token)


def parameters(model_folder: Path) -> int:
    """Count the numbers in the saved weights; tied ones are saved once.

    Raises:
        ValueError: If a file of weights is damaged.
    """
    total = 0
    for path in sorted(model_folder.glob("model*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"weights ({path}) must be whole; save the model again ({error}).") from error
    return total


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
        record = Record(path.name, path, _read_config(path))
        return replace(record, evaluation=_read_evaluation(record, path))
    if not (path / RECIPE_FILE).is_file():
        inner = [each for each in list_checkpoints(path) if (each / "config.json").is_file()]
        advice = f"give its newest checkpoint, {inner[-1]}" if inner else "give another folder"
        raise ValueError(f"model ({path}) must hold config.json, or recipe.yaml and model/; {advice}.")
    return _read_finished_run(path)


def read_checkpoint(record: Record, checkpoint: Path) -> Record:
    """Return the record of a run's checkpoint: without what was measured of the finished model.

    The run may have gone on with another recipe since, so the checkpoint's own describes it; but what is stated of the
    run is stated of its checkpoints too.

    Raises:
        ValueError: If the checkpoint is of no model of this package, or its recipe is none.
    """
    recipe, own, fingerprints = record.recipe, _recipe_of(checkpoint), record.fingerprints
    if recipe is not None and own is not None:
        newest = _recipe_of(record.checkpoints[-1]) if record.checkpoints else None
        # A version that kept the run's first recipe in every checkpoint does not tell which of them came before.
        if newest is not None and own.corpora != newest.corpora == recipe.corpora:
            fingerprints = fingerprints[:-1]  # it was saved before the run went on with its last text
        recipe = replace(own, card=recipe.card)
    return replace(
        record,
        model_folder=checkpoint,
        config=_read_config(checkpoint),
        recipe=recipe,
        report=None,
        evaluation=None,
        checkpoints=(),
        processes=(_read_json(checkpoint / STATE_FILE) or {}).get("processes", record.processes),
        fingerprints=fingerprints,
        step=checkpoint_step(checkpoint),
    )


def _recipe_of(checkpoint: Path) -> Recipe | None:
    """Read the recipe that a checkpoint was saved with, None where it holds none."""
    state = _read_json(checkpoint / STATE_FILE) or {}
    try:
        return recipe_from_dict(state["recipe"]) if state.get("recipe") else None
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"recipe of the checkpoint ({checkpoint}) must be one of this version; leave the checkpoint out ({error})."
        ) from error


def _read_finished_run(run: Path) -> Record:
    # A finished run that went on has lost its report, and its recipe is no longer that of its model.
    for name in ("model/config.json", REPORT_FILE):
        if not (run / name).is_file():
            raise ValueError(f"run ({run}) must be finished, and has no {name}; go on with it, or give a checkpoint.")
    return _read_run(run, run / "model")


def _read_run(run: Path, model: Path) -> Record:
    checkpoints = list_checkpoints(run / "checkpoints")
    state = _read_json(checkpoints[-1] / STATE_FILE) if checkpoints else None
    record = Record(
        name=run.name,
        model_folder=model,
        config=_read_config(model),
        recipe=load_recipe(run / RECIPE_FILE),
        report=_read_json(run / "report.json"),
        metrics=read_metrics(run / "metrics.jsonl"),
        curve=run / CURVE_FILE if (run / CURVE_FILE).is_file() else None,
        checkpoints=tuple(checkpoints),
        processes=(state or {}).get("processes", 1),
        fingerprints=tuple(trained_fingerprints(run)),
    )
    # A new model takes the place of the whole of model/, so that what was measured and lies there is of this one;
    # a file beside it may have outlived the model that it was measured of.
    return replace(record, evaluation=_read_evaluation(record, model, run))


def _read_evaluation(record: Record, *folders: Path) -> dict[str, Any] | None:
    """Read what was measured of a model from the first folder that has it, and make sure that it is of this model."""
    for path in (folder / EVALUATION_FILE for folder in folders):
        evaluation = _read_json(path)
        if evaluation is not None:
            measured = evaluation.get("model")
            if isinstance(measured, Mapping):
                _refuse_of_another(record, path, measured)
            return evaluation
    return None


def _refuse_of_another(record: Record, path: Path, measured: Mapping[str, Any]) -> None:
    own = {"class": record.class_name, "parameters": parameters(record.model_folder)}
    for name, value in own.items():
        # Without weights in safetensors there is nothing to count: that is refused where it matters.
        if value and name in measured and measured[name] != value:
            raise ValueError(
                f"evaluation ({path}, of a model whose {name} is {measured[name]}) must be of the model beside it, "
                f"where it is {value}; measure again with hf-minilm evaluate, or delete it."
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
