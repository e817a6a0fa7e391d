"""The text of a model card, a function a section; each yields lines of Markdown, or none if it has nothing to say."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..data.best_prediction import MASK
from .corpora import describe_corpus, is_generated, language_names
from .measurements import Measurement, escape, notes_of
from .privacy import published_recipe
from .record import CURVE_FILE, Record, Statements, parameters

_KINDS = {
    "ForPreTraining": ("A masked language model", " with next-sentence prediction"),
    "ForMaskedLM": ("A masked language model", ""),
    "ForCausalLM": ("A causal language model", ""),
    "ForConditionalGeneration": ("An encoder-decoder", ""),
    "ForSequenceClassification": ("A model", " that classifies texts"),
    "ForTokenClassification": ("A model", " that classifies words"),
    "ForQuestionAnswering": ("A model", " that finds answers in a text"),
    "ForMultipleChoice": ("A model", " that chooses among answers"),
    "ForNextSentencePrediction": ("A model", " that tells whether two texts are neighbours"),
}
"""What a class is, before and after its number of parameters."""
_TASKS_OF_ENCODER_DECODERS = {"pairs": " that writes a target from its source", "denoising": " that fills gaps"}
_SCHEMES = {
    "none": "no positions",
    "learned": "learned positions",
    "sinusoidal": "sinusoidal positions",
    "rope": "rotary positions",
    "alibi": "ALiBi",
    "relative_bias": "relative position biases",
}
_PIPELINES = ("fill-mask", "text-generation", "token-classification", "text-classification")
_BEGINNINGS = {"es": "El", "en": "The"}


@dataclass(frozen=True)
class Described:
    """All that a card is written from.

    Attributes:
        record: The model and what lies around it.
        statements: What only a person can say, completed by what is known of the recipe's corpora.
        repo_id: Where the model is on the Hub.
        pipeline_tag: The Hub's task.
        corpora: Names of the corpora as they may be published.
        measurements: What was measured.
        revision: The model's branch there; None: the main one.
        native: transformers' own architectures that the model can become.
    """

    record: Record
    statements: Statements
    repo_id: str
    pipeline_tag: str
    corpora: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    revision: str | None = None
    native: tuple[str, ...] = ()


def head(described: Described) -> Iterator[str]:
    """Say what the model is in one paragraph."""
    record = described.record
    yield f"# {described.repo_id.split('/')[-1]}"
    yield ""
    if record.step is not None:
        yield f"> The state after step {record.step:,} of a training, not its end."
        yield from _loss_of_step(record)
        yield ""
    start = f"made from `{described.statements.base_model}`" if described.statements.base_model else ""
    if described.corpora:
        text = ", ".join(describe_corpus(corpus) for corpus in described.corpora)
        before = f", and {_earlier_texts(record)}" if record.num_earlier_texts else ""
        start = f"{start or 'trained from initial weights'} on {text}{before}"
    languages = described.statements.languages
    spoken = f", in {language_names(languages)}" if languages else ""
    what, purpose = next(
        (words for ending, words in _KINDS.items() if record.class_name.endswith(ending)), ("An encoder", "")
    )
    if record.recipe is not None and not purpose:
        purpose = _TASKS_OF_ENCODER_DECODERS.get(record.recipe.objective.name, "")
    sentence = f"{what} of {_count(parameters(record.model_folder))} parameters{purpose}"
    architecture = "that of hf_minilm, with attention and positional embeddings of its own"
    yield (
        f"{sentence}{', ' if start else ''}{start}{spoken}. Its architecture is {architecture}; the code lies beside "
        "the weights."
    )


def _loss_of_step(record: Record) -> Iterator[str]:
    for line in record.metrics:
        if line["step"] == record.step and "held_out_loss" in line:
            caveat = ", some of which may have been trained on," if record.num_earlier_texts else ""
            yield f"> Its loss on held-out text{caveat} is {line['held_out_loss']:.3g} nats per predicted token."


def _earlier_texts(record: Record) -> str:
    """Name what the run was trained on before the recipe's text: it is known to differ, and no more."""
    number = record.num_earlier_texts
    others = "on another text or another part of it" if number == 1 else f"on {number} other texts or parts of it"
    # Where a checkpoint stood among them is not kept.
    return f"before that {others}" if record.step is None else f"perhaps {others}"


def _count(number: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return str(number)


def usage(described: Described) -> Iterator[str]:
    """Show how to load the model without the package, and with it."""
    yield "## How to use it"
    yield ""
    yield "Without hf_minilm, with the code that lies beside the weights:"
    yield ""
    yield "```python"
    yield from _code(described, ", trust_remote_code=True")
    yield "```"
    yield ""
    yield "With hf_minilm installed, which brings the faster kernels and the command line:"
    yield ""
    yield "```python"
    yield "import hf_minilm  # registers the architecture with transformers"
    yield from _code(described, "")
    yield "```"


def example(described: Described) -> str:
    """Give a text to try the model on: one of the report's where its corpus may be quoted."""
    record, report = described.record, described.record.report or {}
    languages = described.statements.languages
    beginning = _BEGINNINGS.get(languages[0] if languages else "", "A")
    if described.pipeline_tag == "fill-mask":
        filled = report.get("filled") if record.is_built_in else None
        text = str(filled[0]["text"]) if filled else f"{beginning} {MASK}."
        return text.replace(MASK, record.mask_token)
    name = "texts" if described.pipeline_tag == "text-generation" else "translations"
    shown = report.get(name) if record.is_built_in else None
    if not shown:
        return beginning
    return str(shown[0]["prompt" if name == "texts" else "source"])


def _code(described: Described, option: str) -> Iterator[str]:
    place, text = json.dumps(described.repo_id), json.dumps(example(described), ensure_ascii=False)
    revision = "" if described.revision is None else f', revision="{described.revision}"'
    tag = described.pipeline_tag
    options = f"{place}{revision}{option}"
    auto = _auto_class(described.record.class_name)
    if tag in _PIPELINES and auto != "AutoModelForNextSentencePrediction":
        yield _import("pipeline")
        yield ""
        yield f'model = pipeline("{tag}", model={options})'
        yield f"print(model({text}{', max_new_tokens=40' if tag == 'text-generation' else ''}))"
        return
    yield _import(f"{auto}, AutoTokenizer")
    yield ""
    # Not told, transformers asks at the terminal whether to run the model's code, although a tokenizer has none.
    yield f"tokenizer = AutoTokenizer.from_pretrained({options})"
    yield f"model = {auto}.from_pretrained({options})"
    if auto == "AutoModelForSeq2SeqLM":
        yield f'source = tokenizer({text}, return_tensors="pt")'
        yield "output = model.generate(**source, max_new_tokens=60)"
        yield "print(tokenizer.decode(output[0], skip_special_tokens=True))"
    elif auto != "AutoModelForMultipleChoice":
        yield f'print(model(**tokenizer({text}, return_tensors="pt")))'


def _import(names: str) -> str:
    return f"from transformers import {names}"


def _auto_class(class_name: str) -> str:
    head = class_name.partition("For")[2]
    if head == "ConditionalGeneration":
        return "AutoModelForSeq2SeqLM"
    return f"AutoModelFor{head}" if head else "AutoModel"


def training(described: Described) -> Iterator[str]:
    """Say on what, for what and for how long the model was trained."""
    record, statements = described.record, described.statements
    yield "## Training"
    yield ""
    yield "| | This model |"
    yield "|---|---|"
    for name, value in _training_facts(described):
        yield f"| {name} | {escape(value)} |"
    if statements.license is None:
        yield ""
        yield "No licence was stated: ask whoever published this model before you use it for more than reading."
    if record.curve is not None and record.step is None:
        yield ""
        yield f"![Training and held-out loss over the tokens seen]({CURVE_FILE})"


def _training_facts(described: Described) -> Iterator[tuple[str, str]]:
    record, statements = described.record, described.statements
    not_stated = "not stated"
    if described.corpora:
        yield "Text", "; ".join(describe_corpus(corpus) for corpus in described.corpora)
        if record.num_earlier_texts:
            yield "Other text", f"{_earlier_texts(record)}, not named here"
        yield "Licence of the text", statements.data_license or not_stated
    elif statements.data_license:
        yield "Licence of the text", statements.data_license
    yield "Languages", ", ".join(statements.languages) or not_stated
    yield "Licence of the model", statements.license or not_stated
    if statements.base_model:
        yield "Made from", f"`{statements.base_model}`"
    elif record.recipe is not None:
        yield "Made from", "initial weights"
    if record.recipe is not None:
        yield from _recipe_facts(record)
    if record.report is not None:
        facts = record.report["facts"]
        minutes, together = facts["seconds"] / 60, ", all texts together" if record.num_earlier_texts else ""
        yield (
            "Amount",
            f"{facts['steps']:,} steps, {facts['tokens']:,} tokens, {minutes:.1f} minutes on "
            f"{facts['device']}{together}",
        )
        if facts.get("skipped"):
            yield "Steps left out", f"{facts['skipped']:,}, as a loss or gradient was not finite"


def _recipe_facts(record: Record) -> Iterator[tuple[str, str]]:
    recipe = record.recipe
    assert recipe is not None
    objective = recipe.objective
    what = {
        "masked": f"{objective.mask_rate:.0%} of the tokens hidden"
        + (", and whether two segments are neighbours" if recipe.next_sentence else ""),
        "causal": "the next token",
        "pairs": "the target of a source",
        "denoising": f"gaps that take {objective.noise_share:.0%} of a text",
    }[objective.name]
    yield "Predicts", what
    rate = f"{recipe.optimizer.peak:g}, {recipe.optimizer.schedule}"
    yield "Optimizer", f"{recipe.optimizer.name}, learning rate {rate}"
    yield "Step", f"{recipe.training.batch_rows} rows of {recipe.data.sequence_length} tokens"
    yield "Seed", str(recipe.training.seed)


def evaluation(described: Described) -> Iterator[str]:
    """Tabulate what was measured, a table a suite."""
    if not described.measurements:
        return
    yield "## Evaluation"
    yield ""
    yield "Intervals are 95 %. All of it was measured on this one run."
    for suite, group in itertools.groupby(described.measurements, key=lambda measured: measured.suite):
        yield ""
        yield f"**{escape(suite)}**"
        yield ""
        yield "| Metric | Value | Interval | Measured on | Note |"
        yield "|---|---|---|---|---|"
        for measured in group:
            yield measured.row()
        if notes := notes_of(described.record, suite):
            yield ""
            yield from (f"- {escape(note)}" for note in notes)
    command = (described.record.evaluation or {}).get("command")
    if command:
        yield ""
        yield f"`evaluation.json` holds more figures of each suite; it was written by `{command}`."


def architecture(described: Described) -> Iterator[str]:
    """Tabulate the stack, or the two stacks, of layers."""
    config = described.record.config
    stacks = [(name, config[name]) for name in ("encoder", "decoder") if isinstance(config.get(name), Mapping)]
    yield "## Architecture"
    yield ""
    yield "| | Layers | Width | Heads | Positions | Longest text | Vocabulary |"
    yield "|---|---|---|---|---|---|---|"
    for name, stack in stacks or [("model", config)]:
        heads, pairs = stack["num_attention_heads"], stack.get("num_key_value_heads")
        shown = f"{heads}" if pairs in (None, heads) else f"{heads}, {pairs} of keys and values"
        scheme = _SCHEMES.get(stack["position_embedding"], stack["position_embedding"])
        cells = (name, stack["num_hidden_layers"], stack["hidden_size"], shown, scheme)
        yield f"| {' | '.join(map(str, cells))} | {stack['max_position_embeddings']:,} | {stack['vocab_size']:,} |"


def twins(described: Described) -> Iterator[str]:
    """Name transformers' own architectures that the model can become."""
    if described.native:
        yield "## Native twins"
        yield ""
        names = " or ".join(f"`{name}`" for name in described.native)
        yield (
            f"The same weights can become {names} of transformers itself, for tools that know no other architectures: "
            f"`hf-minilm export {described.repo_id} OUT --to {described.native[0]}`."
        )


def intended_use(described: Described) -> Iterator[str]:
    """Say what the model is for and where it ends."""
    yield "## What it is for, and its limits"
    yield ""
    yield from (f"- {sentence}" for sentence in (_purpose(described), *_limits(described)))


def _purpose(described: Described) -> str:
    purposes = {
        "fill-mask": "It says which words may stand in a hidden place, and is a beginning for fine-tuning: to classify "
        "texts or words, to find answers.",
        "text-generation": "It continues texts, and is a beginning for fine-tuning. It was not taught to follow "
        "instructions or to hold a conversation.",
        "translation": "It writes the target of a source like those that it was trained on, and of no other.",
        "text2text-generation": "It fills gaps in a text, and is a beginning for fine-tuning from text to text.",
    }
    return purposes.get(described.pipeline_tag, "It answers inputs like those that it was trained on.")


def _limits(described: Described) -> Iterator[str]:
    record = described.record
    if described.corpora and is_generated(described.corpora) and not record.num_earlier_texts:
        yield (
            "Its text was generated, with a small lexicon and a fixed grammar: it is made for study and comparison, "
            "and knows nothing of the world or of other texts."
        )
    if record.report is not None:
        yield (
            f"It has seen {record.report['facts']['tokens']:,} tokens: what its text does not say often, it has not "
            "learnt."
        )
    if record.recipe is not None:
        # The report measures rows as they were trained on; what evaluation.json measures is as long as was asked for.
        unknown = "" if (record.evaluation or {}).get("results") else "; longer texts were not measured"
        yield f"It was trained on rows of {record.recipe.data.sequence_length} tokens{unknown}."
    yield (
        "These figures say nothing of bias, of offensive outputs or of passages that it has by heart. Do not let it "
        "decide about people."
    )


def reproduction(described: Described) -> Iterator[str]:
    """Give the command that trains the model again."""
    record = described.record
    if record.recipe is None:
        return
    recipe = published_recipe(record.recipe)
    entry = "hf-minilm"
    if record.processes > 1:
        entry = f"torchrun --standalone --nproc_per_node {record.processes} -m hf_minilm.cli.main"
    yield "## Train it again"
    yield ""
    yield from _what_the_recipe_holds(record)
    yield ""
    yield "```bash"
    yield f"{entry} pretrain recipe.yaml"
    yield "```"
    files = [name for name in recipe.corpora if not name.startswith(("builtin:", "hub:"))]
    if files:
        yield ""
        yield f"It looks for its text under {', '.join(f'`{name}`' for name in files)}, which is not published here."
    if recipe.training.budget.kind == "seconds":
        yield ""
        yield "Its budget is a time, so that a faster or slower machine takes more or fewer steps."


def _what_the_recipe_holds(record: Record) -> Iterator[str]:
    if not record.num_earlier_texts:
        yield "`recipe.yaml` beside this card holds every setting:"
        return
    yield (
        "This model cannot be trained again from what lies here: `recipe.yaml` beside this card holds the settings "
        f"that it was saved with, and it was trained {_earlier_texts(record)}, too. From initial weights, on the text "
        "of that recipe alone, this trains another one:"
    )
