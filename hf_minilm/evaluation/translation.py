"""What an encoder-decoder makes of texts, and how near that comes to what it was to make of them.

The scores are sacrebleu's: chrF (Popović 2015) and BLEU (Papineni et al. 2002) over all texts together, with the
settings that `sacrebleu` has by itself, so that they compare with published ones of the same signature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .language_model import evaluating

_NUM_SHOWN = 3
_TOKENS_A_SOURCE_TOKEN, _TOKENS_BESIDES = 2, 20


@dataclass(frozen=True, slots=True)
class TranslationScores:
    """How near a model's outputs come to their references.

    Attributes:
        num_beams: Hypotheses kept at each step of the search; 1 is greedy.
        number: Pairs of an output and its reference.
        chrf: F-score of character n-grams, from 0 to 100.
        bleu: From 0 to 100; 0 if every output has fewer than four words, even where it is the reference.
        exact_match: Share of outputs that are their reference but for white space, from 0 to 1.
        chrf_signature: The settings and the version behind `chrf`, as sacrebleu writes them.
        bleu_signature: Those behind `bleu`.
    """

    num_beams: int
    number: int
    chrf: float
    bleu: float
    exact_match: float
    chrf_signature: str
    bleu_signature: str


@dataclass(frozen=True, slots=True)
class Translation:
    """A text, what it was to become, and what a model makes of it."""

    source: str
    target: str
    output: str


def evaluate_translations(
    model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], *, beams: Sequence[int] = (1, 4)
) -> tuple[tuple[TranslationScores, ...], tuple[Translation, ...]]:
    """Translate held-out texts once with each number of beams.

    Args:
        model: An encoder-decoder.
        tokenizer: Its tokenizer.
        pairs: Texts and their references.
        beams: Numbers of beams.

    Returns:
        The scores of each number of beams, and the first three translations of the last one.

    Raises:
        ValueError: If there is no pair, or no number of beams.
    """
    if not beams:
        raise ValueError("beams (none) must have at least 1 number; give 1 for greedy search.")
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    scores = []
    for num_beams in beams:
        outputs = translate(model, tokenizer, sources, num_beams=num_beams)
        scores.append(score_translations(outputs, targets, num_beams=num_beams))
    shown = zip(sources[:_NUM_SHOWN], targets[:_NUM_SHOWN], outputs[:_NUM_SHOWN], strict=True)
    return tuple(scores), tuple(Translation(*texts) for texts in shown)


def translate(
    model: Any,
    tokenizer: Any,
    sources: Sequence[str],
    *,
    num_beams: int = 1,
    max_new_tokens: int | None = None,
    batch_size: int = 32,
) -> list[str]:
    """Translate texts, always into the likeliest tokens found, so that the outputs can be had again.

    Args:
        model: An encoder-decoder.
        tokenizer: Its tokenizer, whose template adds what the encoder is to read besides the text.
        sources: Texts, in any order; those of like length share a batch, for little padding.
        num_beams: Hypotheses kept at each step of the search; 1 is greedy.
        max_new_tokens: Most tokens of an output; None: 20 more than twice the longest source of its batch. An output
            also ends with the end token, or where the decoder's positions do.
        batch_size: Most texts at once.

    Returns:
        The outputs in the order of the sources, without special tokens and white space around them.
    """
    if not sources:
        return []
    lengths = [len(ids) for ids in tokenizer(list(sources))["input_ids"]]
    order = sorted(range(len(sources)), key=lengths.__getitem__)
    outputs = [""] * len(sources)
    for first in range(0, len(order), batch_size):
        places = order[first : first + batch_size]
        longest = lengths[places[-1]]
        texts = _translate_batch(
            model,
            tokenizer,
            [sources[place] for place in places],
            num_beams=num_beams,
            max_new_tokens=_most_new_tokens(model, longest, max_new_tokens),
        )
        for place, text in zip(places, texts, strict=True):
            outputs[place] = text
    return outputs


def _most_new_tokens(model: Any, longest: int, asked: int | None) -> int:
    """Return how many tokens an output may have, from the tokens of the longest source and what was asked for."""
    wanted = _TOKENS_A_SOURCE_TOKEN * longest + _TOKENS_BESIDES if asked is None else asked
    # As many as there are positions: the start token takes one, and the last token written is never read.
    positions = getattr(getattr(model.config, "decoder", None), "max_position_embeddings", None)
    return wanted if positions is None else min(wanted, positions)


def _translate_batch(
    model: Any, tokenizer: Any, sources: list[str], *, num_beams: int, max_new_tokens: int
) -> list[str]:
    encoded = tokenizer(sources, padding=True, padding_side="right", return_tensors="pt")
    with evaluating(model) as device:
        output = model.generate(
            input_ids=encoded["input_ids"].to(device),
            attention_mask=encoded["attention_mask"].to(device),
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    return [text.strip() for text in tokenizer.batch_decode(output, skip_special_tokens=True)]


def score_translations(outputs: Sequence[str], targets: Sequence[str], *, num_beams: int = 1) -> TranslationScores:
    """Score outputs against their references.

    Args:
        outputs: What a model wrote.
        targets: The reference of each output.
        num_beams: The number of beams that the outputs were found with, to be noted beside the scores.

    Raises:
        ValueError: If there is no output, or another number of references.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    if len(outputs) != len(targets):
        raise ValueError(f"outputs ({len(outputs)}) must be as many as targets ({len(targets)}); give one for each.")
    if not outputs:
        raise ValueError("outputs (0) must be at least 1 to be scored; give some pairs of texts.")
    chrf, bleu = CHRF(), BLEU()
    references = [list(targets)]
    # Rounding may take sacrebleu's BLEU a little above 100.
    chrf_score, bleu_score = (
        min(metric.corpus_score(list(outputs), references).score, 100.0) for metric in (chrf, bleu)
    )
    right = sum(output.split() == target.split() for output, target in zip(outputs, targets, strict=True))
    return TranslationScores(
        num_beams=num_beams,
        number=len(outputs),
        chrf=chrf_score,
        bleu=bleu_score,
        exact_match=right / len(outputs),
        chrf_signature=str(chrf.get_signature()),
        bleu_signature=str(bleu.get_signature()),
    )
