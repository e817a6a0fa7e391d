"""What a trained model says: masked words filled in, and texts continued."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..data.best_prediction import MASK
from ..data.document import Document, split_sentences
from ..data.tokenizer import begin_token, special_tokens
from ..data.world import World
from .language_model import evaluating, most_positions, prediction_logits
from .translation import Translation, translate

GAP = "<extra_id_0>"
"""The token that stands for a text's first gap."""

_WORD = re.compile(r"[^\W\d_]{3,}")
_SENTENCE_LENGTHS = range(30, 86)  # characters: enough to guess from, and short enough to read


@dataclass(frozen=True, slots=True)
class MaskedSentence:
    """A sentence with one `[MASK]`, and the words that may stand there, the best one first."""

    text: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FilledMask:
    """What a model puts in a sentence's mask.

    Attributes:
        text: The sentence, with `[MASK]`.
        answers: The words that may stand there, as far as they are known.
        guesses: The likeliest tokens and their probabilities, the likeliest first.
    """

    text: str
    answers: tuple[str, ...]
    guesses: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """A beginning, and what a model makes of it."""

    prompt: str
    continuation: str


def lecture_sentences(world: World) -> tuple[MaskedSentence, ...]:
    """Return the sentences whose masked word is settled by words at a distance, in the world's languages."""
    return tuple(MaskedSentence(example.text, tuple(example.acceptable)) for example in world.lecture_examples)


def held_out_sentences(documents: Iterable[Document], *, number: int = 3) -> tuple[MaskedSentence, ...]:
    """Pick sentences of different documents and mask the word nearest to the middle of each.

    Only sentences that are easy to read, of 30 to 85 characters, are taken; there may be fewer than asked for.
    """
    found: list[MaskedSentence] = []
    for document in documents:
        if len(found) == number:
            break
        sentence = next((_masked(text) for text in _sentences(document) if _WORD.search(text)), None)
        if sentence is not None:
            found.append(sentence)
    return tuple(found)


def held_out_beginnings(documents: Iterable[Document], *, number: int = 3, num_words: int = 6) -> tuple[str, ...]:
    """Take the first words of the first sentence of different documents that is easy to read, as beginnings."""
    firsts = (next(iter(_sentences(document)), None) for document in documents)
    found = itertools.islice((sentence for sentence in firsts if sentence is not None), number)
    return tuple(" ".join(sentence.split()[:num_words]) for sentence in found)


def _sentences(document: Document) -> Iterable[str]:
    for paragraph in document.paragraphs:
        for start, stop in split_sentences(paragraph):
            if stop - start in _SENTENCE_LENGTHS:
                yield paragraph[start:stop]


def _masked(text: str) -> MaskedSentence:
    word = min(_WORD.finditer(text), key=lambda match: abs(match.start() + match.end() - len(text)))
    return MaskedSentence(text[: word.start()] + MASK + text[word.end() :], (word.group(),))


def fill_masks(
    model: nn.Module, tokenizer: Any, sentences: Sequence[MaskedSentence], *, top: int = 5
) -> tuple[FilledMask, ...]:
    """Ask a masked model for the likeliest tokens at each sentence's mask.

    Sentences that are longer than the model's `max_position_embeddings` are left out.

    Args:
        model: A masked or pre-training model.
        tokenizer: Its tokenizer.
        sentences: Sentences with one `[MASK]` each, whatever the tokenizer's own mask token.
        top: Guesses a sentence.

    Raises:
        ValueError: If a sentence has no mask.
    """
    filled = []
    with evaluating(model) as device:
        for sentence in sentences:
            ids = tokenizer(sentence.text.replace(MASK, tokenizer.mask_token), add_special_tokens=False)["input_ids"]
            ids = [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
            if tokenizer.mask_token_id not in ids:
                raise ValueError(
                    f"sentence ({sentence.text}) must have one {MASK}; put it where a word is to be found."
                )
            if len(ids) > most_positions(model):
                continue
            logits = prediction_logits(model(input_ids=torch.tensor([ids], device=device)))
            best = logits[0, ids.index(tokenizer.mask_token_id)].float().softmax(-1).topk(min(top, logits.shape[-1]))
            words = [tokenizer.decode([token]).strip() for token in best.indices.tolist()]
            guesses = tuple(zip(words, best.values.tolist(), strict=True))
            filled.append(FilledMask(sentence.text, sentence.answers, guesses))
    return tuple(filled)


def fill_gaps(model: Any, tokenizer: Any, sentences: Sequence[MaskedSentence]) -> tuple[Translation, ...]:
    """Let an encoder-decoder that was trained on gaps say what stands in each sentence's mask.

    Sentences that are longer than the encoder's `max_position_embeddings` are left out.

    Args:
        model: An encoder-decoder.
        tokenizer: Its tokenizer, with a token for the first gap.
        sentences: Sentences with one `[MASK]` each, and the word that stood there.
    """
    longest = most_positions(model)
    gaps = [(sentence.text.replace(MASK, GAP), sentence.answers[0]) for sentence in sentences]
    asked = [(source, answer) for source, answer in gaps if len(tokenizer(source)["input_ids"]) <= longest]
    outputs = translate(model, tokenizer, [source for source, _ in asked])
    return tuple(Translation(*texts, output) for texts, output in zip(asked, outputs, strict=True))


def generate_texts(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, max_new_tokens: int = 40
) -> tuple[GeneratedText, ...]:
    """Let a causal model continue texts, always with its likeliest token, so that the texts can be had again.

    Args:
        model: A causal model.
        tokenizer: Its tokenizer.
        prompts: Beginnings; an empty one lets the model begin by itself.
        max_new_tokens: Most tokens to add; a text also ends with the end token, or where the model's positions do.
    """
    texts = []
    with evaluating(model) as device:
        for prompt in prompts:
            ids = [begin_token(special_tokens(tokenizer)), *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
            room = min(max_new_tokens, model.config.max_position_embeddings - len(ids))
            new = ids[:0]
            if room > 0:
                input_ids = torch.tensor([ids], device=device)
                output = model.generate(
                    input_ids,
                    attention_mask=torch.ones_like(input_ids),
                    max_new_tokens=room,
                    do_sample=False,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
                new = output[0, len(ids) :].tolist()
            texts.append(GeneratedText(prompt, tokenizer.decode(new, skip_special_tokens=True)))
    return tuple(texts)
