"""A model card, written from the recipe and from what was measured, and never by hand.

The metadata in front is what the Hub reads: it shows the results of `model-index` beside the model, finds models by
language, licence and task, and offers the widget of `pipeline_tag`. What nobody stated is left out, and the text says
so: a licence is never guessed. `card_sections` writes the text below it.
"""

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from ..conversion import expressible
from ..evaluation.run_corpus import RECIPE_FILE, keep_fingerprints
from ..model.configuration_minilm import MiniLMConfig
from ..model.configuration_minilm_seq2seq import MiniLMSeq2SeqConfig
from ..training.recipe import describe_recipe
from .card_sections import (
    Described,
    architecture,
    evaluation,
    head,
    intended_use,
    reproduction,
    training,
    twins,
    usage,
)
from .corpora import corpora_of, dataset_names, known_languages, known_license
from .measurements import measurements
from .privacy import published_recipe
from .record import CARD_FILE, CURVE_FILE, Record, Statements, read_record

_PIPELINE_TAGS = {
    "ForPreTraining": "fill-mask",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForNextSentencePrediction": "text-classification",
    "ForConditionalGeneration": "text2text-generation",
}


def pipeline_tag(record: Record) -> str:
    """Name the Hub's task that a model is for."""
    if record.recipe is not None and record.recipe.objective.name == "pairs":
        return "translation"
    ending = (tag for name, tag in _PIPELINE_TAGS.items() if record.class_name.endswith(name))
    return next(ending, "feature-extraction")


def describe(
    record: Record,
    *,
    statements: Statements | None = None,
    repo_id: str | None = None,
    revision: str | None = None,
) -> Described:
    """Put together all that a card is written from.

    Args:
        record: The model.
        statements: What only a person can say; what is missing is taken from the recipe and from built-in corpora.
        repo_id: Where the model is, or will be, on the Hub; None writes `your-name` before its name.
        revision: The branch that it has there; None: the main one.
    """
    said = statements or Statements()
    corpora: tuple[str, ...] = ()
    if record.recipe is not None:
        said = said.over(record.recipe.card)
        corpora = corpora_of(record.recipe)
        if not record.num_earlier_texts:  # of which nothing is known, and so of no licence or language of them all
            languages = said.languages or known_languages(record.recipe)
            said = Statements(said.license, said.data_license or known_license(corpora), languages, said.base_model)
    place = repo_id or f"your-name/{record.name}"
    tag, measured = pipeline_tag(record), measurements(record)
    return Described(record, said, place, tag, corpora, measured, revision=revision, native=native_twins(record))


def native_twins(record: Record) -> tuple[str, ...]:
    """Name transformers' own architectures that a model can become without a change in what it computes."""
    classes = {each.model_type: each for each in (MiniLMConfig, MiniLMSeq2SeqConfig)}
    config = classes[record.config["model_type"]].from_dict(record.config)
    return tuple(name for name, obstacles in expressible(config, record.class_name).items() if not obstacles)


def write_card(described: Described) -> ModelCard:
    """Write the card; its text is the same for the same run, to the byte."""
    sections = (head, usage, training, evaluation, architecture, twins, intended_use, reproduction)
    text = "\n".join("\n".join((*lines, "")) for section in sections if (lines := list(section(described))))
    return ModelCard(f"---\n{_data(described).to_yaml()}\n---\n\n{text}")


def _data(described: Described) -> ModelCardData:
    statements, record = described.statements, described.record
    languages = list(statements.languages)
    return ModelCardData(
        model_name=described.repo_id.split("/")[-1] if described.measurements else None,
        language=languages[0] if len(languages) == 1 else languages or None,
        license=statements.license,
        library_name="transformers",
        pipeline_tag=described.pipeline_tag,
        base_model=statements.base_model,
        datasets=list(dataset_names(described.corpora)) or None,
        tags=list(_tags(record)),
        metrics=list(dict.fromkeys(measured.metric for measured in described.measurements)) or None,
        eval_results=[measured.result(described.pipeline_tag) for measured in described.measurements] or None,
    )


def _tags(record: Record) -> Iterator[str]:
    yield "hf_minilm"
    yield "custom_code"
    if record.step is not None:
        yield "checkpoint"


def save_card(described: Described, folder: Path, *, name: str = CARD_FILE) -> Path:
    """Save a card, and beside it the picture of the losses, the recipe and what is known of its text.

    Args:
        described: From `describe`.
        folder: Where they go; made if missing.
        name: The card's file; what lies beside one that is not `README.md` has its name, with `.png` and `.yaml`.

    Returns:
        The card's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record, text = described.record, str(write_card(described))
    picture, recipe = CURVE_FILE, RECIPE_FILE
    if name != CARD_FILE:
        picture, recipe = f"{Path(name).stem}.png", f"{Path(name).stem}.yaml"
        text = text.replace(f"]({CURVE_FILE})", f"]({picture})").replace(RECIPE_FILE, recipe)
    if record.curve is not None and record.step is None:
        (folder / picture).write_bytes(record.curve.read_bytes())
    if record.recipe is not None:
        (folder / recipe).write_text(describe_recipe(published_recipe(record.recipe)), encoding="utf-8")
    if record.fingerprints and name == CARD_FILE:
        keep_fingerprints(folder, record.fingerprints)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def save_run_card(run: Path) -> Path:
    """Save the card of a finished run beside its model."""
    record = read_record(run)
    return save_card(describe(record), record.model_folder)
