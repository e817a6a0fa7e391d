"""What a fine-tuned model gets right: classes of texts, tags of words, answers to questions.

Texts of about one length share a batch, the longest first. Shapes: B texts, T tokens, C classes.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answers import exact_match, token_f1
from .entities import are_entity_tags, find_entities
from .evaluation_result import Figure
from .intervals import bootstrap_interval
from .labelled_files import LabelledText, Question, TaggedSentence
from .language_model import evaluating
from .metrics import AnswerMetric, ClassificationMetric, CorrelationMetric, EntityMetric
from .sentence_pairs import share_of
from .text_scores import longest_text

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_TOKENS_AT_ONCE = 8_192
_STRIDE = 128  # tokens that two windows of a long text share, as in BERT's own code for SQuAD
_LONGEST_ANSWER = 30  # tokens
_CANDIDATES = 20  # likeliest starts, and ends, that are combined


def evaluate_classification(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[LabelledText], *, seed: int
) -> dict[str, Figure]:
    """Measure a sequence classifier, or with one output a regression; texts are cut to what the model can read.

    Returns:
        `accuracy`, `macro_f1`, `weighted_f1`, `matthews_correlation`; or `pearson` and `spearman`.

    Raises:
        ValueError: If the model is no classifier, or a label is none of its classes.
    """
    _refuse_other_head(model, "ForSequenceClassification")
    texts = [(example.text,) if example.second is None else (example.text, example.second) for example in examples]
    encoded = [tokenizer(*pair, truncation=True, max_length=longest_text(model, tokenizer)) for pair in texts]
    logits = np.stack(list(_outputs(model, tokenizer, encoded, lambda output: output.logits)))
    if model.config.num_labels == 1:
        return _correlations(logits[:, 0], np.array([float(example.label) for example in examples]), seed=seed)
    numbers = {name: number for number, name in enumerate(_class_names(model))}
    right = np.array([_class_number(example.label, numbers) for example in examples])
    predicted = logits.argmax(-1)
    return _class_figures(predicted, right, seed=seed)


def evaluate_tagging(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[TaggedSentence], *, seed: int
) -> dict[str, Figure]:
    """Measure a token classifier, whose tag of a word is that of the word's first token.

    Returns:
        For tags of entities (see `entities`) `entity_f1`, `entity_precision`, `entity_recall`, `token_accuracy` and
        `entity_f1/TYPE`; for others `accuracy`, `macro_f1`, `weighted_f1` and `matthews_correlation` over the words.

    Raises:
        ValueError: If the model is no token classifier, or a sentence is longer than it can read.
    """
    _refuse_other_head(model, "ForTokenClassification")
    encoded = [tokenizer(list(sentence.words), is_split_into_words=True) for sentence in sentences]
    longest, most = max(len(each["input_ids"]) for each in encoded), longest_text(model, tokenizer)
    if longest > most:
        raise ValueError(f"tokens of a sentence ({longest}) must be at most {most} for this model; divide it.")
    names = _class_names(model)
    predicted: list[list[str]] = []
    outputs = _outputs(model, tokenizer, encoded, lambda output: output.logits)
    for sentence, each, logits in zip(sentences, encoded, outputs, strict=True):
        best = logits.argmax(-1)
        firsts = _first_tokens(each.word_ids(), len(sentence.words))
        predicted.append([names[best[place]] for place in firsts])
    right = [list(sentence.tags) for sentence in sentences]
    if are_entity_tags([tag for tags in right for tag in tags]):
        return _entity_figures(predicted, right, seed=seed)
    numbers = {name: number for number, name in enumerate(names)}
    return _class_figures(
        np.array([numbers[tag] for tags in predicted for tag in tags]),
        np.array([_class_number(tag, numbers) for tags in right for tag in tags]),
        seed=seed,
        counted="words",
        sentences=np.repeat(np.arange(len(right)), [len(tags) for tags in right]),
    )


def evaluate_spans(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    language: str,
    seed: int,
) -> dict[str, Figure]:
    """Measure a model for extractive question answering; long texts are read in windows that share 128 tokens.

    Returns:
        `token_f1` and `exact_match`; see `answers`.

    Raises:
        ValueError: If the model has no such head, the language no articles on record, or a question leaves no room for
            the text.
    """
    _refuse_other_head(model, "ForQuestionAnswering")
    answers = [_best_answer(model, tokenizer, question) for question in questions]
    rights = [list(question.answers) for question in questions]
    scores = AnswerMetric().compute(predictions=answers, references=rights, language=language)
    pairs = list(zip(answers, rights, strict=True))
    shared = np.array([[token_f1(*pair, language=language), 1.0] for pair in pairs])
    exact = sum(exact_match(*pair, language=language) for pair in pairs)
    return {
        "token_f1": _resampled(scores["token_f1"], shared, _mean, counted="questions", seed=seed),
        "exact_match": share_of(exact, len(pairs), counted="questions"),
    }


def _refuse_other_head(model: PreTrainedModel, ending: str) -> None:
    if not type(model).__name__.endswith(ending):
        raise ValueError(f"model (a {type(model).__name__}) must be a ...{ending} for this suite; fine-tune one.")


def _class_names(model: PreTrainedModel) -> list[str]:
    config: Any = model.config
    return [str(config.id2label[number]) for number in range(config.num_labels)]


def _class_number(label: str | int | float, numbers: dict[str, int]) -> int:
    if str(label) in numbers:
        return numbers[str(label)]
    # The names that transformers gives to classes without one.
    if isinstance(label, int) or str(label).isdigit():
        number = int(label)
        if 0 <= number < len(numbers):
            return number
    raise ValueError(f"label ({label}) must be one of {', '.join(list(numbers)[:20])}; use the classes of the model.")


def _outputs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[Any],
    choose: Callable[[Any], torch.Tensor],
) -> Iterator[NDArray[np.float32]]:
    """Give what the model says of each text, in their order; rows of padding are at the end of what is chosen."""
    order = sorted(range(len(encoded)), key=lambda place: -len(encoded[place]["input_ids"]))
    found: list[Any] = [None] * len(encoded)
    with evaluating(model) as device:
        while order:
            size = max(1, _TOKENS_AT_ONCE // len(encoded[order[0]]["input_ids"]))
            batch, order = order[:size], order[size:]
            rows = [dict(encoded[place]) for place in batch]
            # On the right whatever the tokenizer's own side: places are those of the text by itself.
            padded = tokenizer.pad(rows, padding_side="right", return_tensors="pt", verbose=False)
            known = {name: padded[name].to(device) for name in tokenizer.model_input_names if name in padded}
            for place, row in zip(batch, choose(model(**known)).float().cpu().numpy(), strict=True):
                found[place] = row
    return iter(found)


def _first_tokens(word_ids: Sequence[int | None], num_words: int) -> list[int]:
    firsts: dict[int, int] = {}
    for place, word in enumerate(word_ids):
        if word is not None:
            firsts.setdefault(word, place)
    if len(firsts) != num_words:
        raise ValueError(f"words with tokens ({len(firsts)}) must be all {num_words} of a sentence; leave it out.")
    return [firsts[word] for word in range(num_words)]


def _class_figures(
    predicted: NDArray[np.int64],
    right: NDArray[np.int64],
    *,
    seed: int,
    counted: str = "texts",
    sentences: NDArray[np.int64] | None = None,
) -> dict[str, Figure]:
    """Score classes; in the bootstrap words are drawn by sentences, of which they have the numbers."""
    scores = ClassificationMetric().compute(predictions=predicted, references=right)
    classes = np.union1d(predicted, right)
    given, wanted = (numbers[:, None] == classes for numbers in (predicted, right))
    # Three sums a class: texts that are right, that were given it, and that have it.
    columns = np.concatenate([given & wanted, given, wanted], axis=1).astype(np.float64)
    if sentences is not None:
        columns = np.stack([columns[sentences == number].sum(axis=0) for number in np.unique(sentences)])
    statistics: dict[str, tuple[str, Statistic]] = {
        "accuracy": ("share", lambda sums: _thirds(sums)[0].sum(axis=1) / _thirds(sums)[2].sum(axis=1)),
        "macro_f1": ("share", lambda sums: np.nanmean(_class_f1(sums), axis=1)),
        "weighted_f1": (
            "share",
            lambda sums: np.nansum(_class_f1(sums) * _thirds(sums)[2], axis=1) / _thirds(sums)[2].sum(axis=1),
        ),
        "matthews_correlation": ("correlation", _matthews),
    }
    resampled = counted if sentences is None else "sentences"
    figures = {
        metric: dataclasses.replace(
            _resampled(scores[metric], columns, statistic, counted=resampled, seed=seed, unit=unit),
            n=len(right),
            counted=counted,
        )
        for metric, (unit, statistic) in statistics.items()
    }
    if sentences is None:
        figures["accuracy"] = share_of(int((predicted == right).sum()), len(right), counted=counted)
    return figures


def _thirds(sums: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return np.split(sums, 3, axis=1)


def _class_f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 of each class, NaN where it is neither given nor there, [samples, C]."""
    shared, given, wanted = _thirds(sums)
    return _ratio(2 * shared, given + wanted, nowhere=np.nan)


def _matthews(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient", equation 8."""
    shared, given, wanted = _thirds(sums)
    number = wanted.sum(axis=1)
    covariance = shared.sum(axis=1) * number - (given * wanted).sum(axis=1)
    product = (number**2 - (given**2).sum(axis=1)) * (number**2 - (wanted**2).sum(axis=1))
    return _ratio(covariance, np.sqrt(product))


def _correlations(predicted: NDArray[np.float32], right: NDArray[np.float64], *, seed: int) -> dict[str, Figure]:
    from scipy.stats import rankdata

    scores = CorrelationMetric().compute(predictions=predicted.astype(float), references=right)
    figures = {}
    for metric, (given, wanted) in {
        "pearson": (predicted.astype(np.float64), right),
        "spearman": (rankdata(predicted), rankdata(right)),
    }.items():
        x, y = given - given.mean(), wanted - wanted.mean()
        columns = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
        figures[metric] = _resampled(scores[metric], columns, _pearson, counted="texts", seed=seed, unit="correlation")
    return figures


def _pearson(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    number, x, y, xx, yy, xy = sums.T
    product = (number * xx - x**2) * (number * yy - y**2)
    # Rounding may take the product of two variances a little below 0.
    return _ratio(number * xy - x * y, np.sqrt(np.maximum(product, 0)), nowhere=np.nan)


def _entity_figures(predicted: list[list[str]], right: list[list[str]], *, seed: int) -> dict[str, Figure]:
    scores = EntityMetric().compute(predictions=predicted, references=right)
    columns = []
    for given, wanted in zip(predicted, right, strict=True):
        found, there = set(find_entities(given)), set(find_entities(wanted))
        tags_right = sum(one == other for one, other in zip(given, wanted, strict=True))
        columns.append([len(found & there), len(found), len(there), tags_right, len(wanted)])
    sums = np.array(columns, np.float64)
    statistics: dict[str, Statistic] = {
        "entity_f1": lambda drawn: _ratio(2 * drawn[:, 0], drawn[:, 1] + drawn[:, 2]),
        "entity_precision": lambda drawn: _ratio(drawn[:, 0], drawn[:, 1]),
        "entity_recall": lambda drawn: _ratio(drawn[:, 0], drawn[:, 2]),
        "token_accuracy": lambda drawn: _ratio(drawn[:, 3], drawn[:, 4]),
    }
    figures = {
        metric: _resampled(scores[metric], sums, statistic, counted="sentences", seed=seed)
        for metric, statistic in statistics.items()
    }
    kinds = [metric for metric in scores if "/" in metric]
    return figures | {
        metric: Figure(value=scores[metric], n=len(right), counted="sentences", unit="share") for metric in kinds
    }


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64], *, nowhere: float = 0.0) -> NDArray[np.float64]:
    """Divide, and give another number where the divisor is 0."""
    return np.divide(part, whole, out=np.full_like(part, nowhere), where=whole > 0)


def _mean(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return sums[:, 0] / sums[:, 1]


def _resampled(
    value: float, columns: NDArray[np.float64], statistic: Statistic, *, counted: str, seed: int, unit: str = "share"
) -> Figure:
    low, high = bootstrap_interval(columns, statistic, seed=seed)
    return Figure(
        value=value,
        low=low,
        high=high,
        n=len(columns),
        counted=counted,
        unit=unit,
        interval=f"bootstrap over {counted}",
    )


def _best_answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: Question) -> str:
    """Return the part of the text whose start and end have the highest sum of scores, over all windows."""
    longest = longest_text(model, tokenizer)
    windows = tokenizer(
        question.question,
        question.context,
        truncation="only_second",
        max_length=longest,
        stride=_stride(tokenizer, question.question, longest),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    names = [name for name in tokenizer.model_input_names if name in windows]
    encoded = [{name: windows[name][place] for name in names} for place in range(len(windows["input_ids"]))]
    best: tuple[float, int, int] = (-np.inf, 0, 0)

    def both(output: Any) -> torch.Tensor:
        return torch.stack([output.start_logits, output.end_logits], dim=1)  # [B, 2, T]

    for place, (starts, ends) in enumerate(_outputs(model, tokenizer, encoded, both)):
        offsets, owners = windows["offset_mapping"][place], windows.sequence_ids(place)
        inside = [at for at, owner in enumerate(owners) if owner == 1]
        likeliest = [sorted(inside, key=lambda at: -scores[at])[:_CANDIDATES] for scores in (starts, ends)]
        for start, end in itertools.product(*likeliest):
            if start <= end < start + _LONGEST_ANSWER:
                score = float(starts[start] + ends[end])
                best = max(best, (score, offsets[start][0], offsets[end][1]), key=lambda found: found[0])
    return question.context[best[1] : best[2]]


def _stride(tokenizer: PreTrainedTokenizerBase, question: str, longest: int) -> int:
    """Return how many tokens two windows share, which must be fewer than a window has beside the question."""
    tokens = len(tokenizer(question, add_special_tokens=False, verbose=False)["input_ids"])
    room = longest - tokens - tokenizer.num_special_tokens_to_add(pair=True)
    if room < 2:
        most = tokens + room - 2
        raise ValueError(f"tokens of a question ({tokens}) must be at most {most} for this model; leave it out.")
    return min(_STRIDE, longest // 4, room - 1)
