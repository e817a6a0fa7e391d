"""Fine-tune a model to answer questions by a part of a text, with transformers' own Trainer.

    python examples/answer_questions.py runs/world/model                # on stories and questions that it makes
    python examples/answer_questions.py runs/mine/model squad.json      # SQuAD's JSON, 1.1 or 2.0 (without answers)
    python examples/answer_questions.py runs/mine/model squad.json --output runs/qa --n-best 3

The model scores every token as the answer's first and last. Where a text is longer than `--max-length`, it is read in
windows that overlap by `--stride` tokens; a window that does not hold the whole answer points at its first token, which
is that of no answer. A span's score is the sum of its ends'; the best span of all windows answers, or none does if "no
answer" scores higher and the training examples had such. This is Devlin et al. 2019, arXiv:1810.04805, section 4.3.

Printed are SQuAD's exact match and F1 of words (Rajpurkar et al. 2016, arXiv:1606.05250), and the three best spans of
the first held-out questions.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from fine_tune import Score, argument_parser, fine_tune, open_model, run, seconds_of, share
from labelled_records import load_parts
from made_examples import questions
from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding

from hf_minilm.data.readers import decoded_pieces
from hf_minilm.evaluation.answers import ARTICLES, exact_match, token_f1

NO_ANSWER = 0  # the place of the token that stands for it
STRIDE, N_BEST = 64, 20


class Span(NamedTuple):
    """A part of a context, which the model gives a score."""

    text: str
    score: float


def read_squad(source: str) -> list[dict[str, Any]]:
    """Read SQuAD's JSON: questions on paragraphs of articles.

    Raises:
        ValueError: If it has another form.
        OSError: If it cannot be read.
    """
    content = "".join(decoded_pieces(Path(source), "strict"))
    try:
        return _questions_of(json.loads(content)["data"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"file ({source}) must be JSON as SQuAD's; correct it ({error!r}).") from error


def _questions_of(articles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "id": str(question["id"]),
            "context": paragraph["context"],
            "question": question["question"],
            "answers": {name: [answer[name] for answer in question["answers"]] for name in ("text", "answer_start")},
        }
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def windows(examples: dict[str, list[Any]], tokenizer: Any, max_length: int, stride: int) -> Any:
    """Turn questions into windows of their contexts, with the places of the answers and the way back to characters.

    `offset_mapping` keeps the first and last character of every token of the context, and None for all others. Windows
    share fewer tokens than `stride` where the longest question leaves no room for as many.

    Raises:
        ValueError: If a question leaves no room for the context.
    """
    questions = tokenizer(examples["question"], add_special_tokens=False, verbose=False)["input_ids"]
    room = max_length - max(map(len, questions)) - tokenizer.num_special_tokens_to_add(pair=True)
    if room < 2:
        raise ValueError(f"max_length ({max_length}) must be at least {max_length - room + 2}; a question fills it.")
    encoded = tokenizer(
        examples["question"],
        examples["context"],
        truncation="only_second",
        max_length=max_length,
        stride=min(stride, room - 1),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    encoded["start_positions"], encoded["end_positions"], encoded["example"] = [], [], []
    for window, example in enumerate(encoded.pop("overflow_to_sample_mapping")):
        in_context = [number == 1 for number in encoded.sequence_ids(window)]
        offsets = [
            offset if here else None for offset, here in zip(encoded["offset_mapping"][window], in_context, strict=True)
        ]
        encoded["offset_mapping"][window] = offsets
        first, last = places_of(examples["answers"][example], offsets)
        encoded["start_positions"].append(first)
        encoded["end_positions"].append(last)
        encoded["example"].append(examples["id"][example])
    return encoded


def places_of(answers: dict[str, list[Any]], offsets: list[tuple[int, int] | None]) -> tuple[int, int]:
    """Find the first and the last token of the first answer, if the window holds all of it."""
    if not answers["text"]:
        return NO_ANSWER, NO_ANSWER
    start = answers["answer_start"][0]
    stop = start + len(answers["text"][0])
    inside = [place for place, offset in enumerate(offsets) if offset and offset[0] < stop and offset[1] > start]
    whole = inside and offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= stop
    return (inside[0], inside[-1]) if whole else (NO_ANSWER, NO_ANSWER)


def best_spans(
    starts: Any, ends: Any, offsets: list[Any], context: str, *, number: int, longest: int = 30
) -> Iterator[Span]:
    """Give the best spans of a window: each end among the `number` best of the context, in order, not too long."""
    inside = np.array([place for place, offset in enumerate(offsets) if offset], dtype=int)
    first, last = (inside[np.argsort(-scores[inside])[:number]].tolist() for scores in (starts, ends))
    for start in first:
        for end in last:
            if start <= end < start + longest:
                yield Span(context[offsets[start][0] : offsets[end][1]], float(starts[start] + ends[end]))


def answer(
    logits: tuple[Any, Any], encoded: datasets.Dataset, examples: datasets.Dataset, *, number: int, may_be_silent: bool
) -> dict[str, list[Span]]:
    """Answer each question by its best spans over all windows, best first; an empty text is no answer."""
    contexts = dict(zip(examples["id"], examples["context"], strict=True))
    found: dict[str, list[Span]] = defaultdict(list)
    silence: dict[str, float] = defaultdict(lambda: np.inf)
    for starts, ends, offsets, name in zip(*logits, encoded["offset_mapping"], encoded["example"], strict=True):
        found[name] += best_spans(starts, ends, offsets, contexts[name], number=number)
        # Most windows of a long text rightly hold no answer: the one that is least sure of it speaks.
        silence[name] = min(silence[name], float(starts[NO_ANSWER] + ends[NO_ANSWER]))
    for name, spans in found.items():
        if may_be_silent or not spans:
            spans.append(Span("", silence[name]))
        spans.sort(key=lambda span: -span.score)
    return {name: spans[:number] for name, spans in found.items()}


def answer_held_out(
    arguments: argparse.Namespace, parts: datasets.DatasetDict
) -> tuple[list[Score], float, dict[str, list[Span]]]:
    """Fine-tune and answer; the scores, the seconds of the training, and the best spans of each question."""
    model, tokenizer = open_model(AutoModelForQuestionAnswering, arguments)
    encoded = parts.map(
        lambda batch: windows(batch, tokenizer, arguments.max_length, arguments.stride),
        batched=True,
        remove_columns=parts["train"].column_names,
    )
    trainer = fine_tune(model, tokenizer, encoded["train"], arguments, data_collator=DataCollatorWithPadding(tokenizer))
    spans = answer(
        trainer.predict(encoded["test"]).predictions,
        encoded["test"],
        parts["test"],
        number=arguments.n_best,
        may_be_silent=not all(answers["text"] for answers in parts["train"]["answers"]),
    )
    exact, overlap = [], []
    for name, answers in zip(parts["test"]["id"], parts["test"]["answers"], strict=True):
        said, right = spans[name][0].text, answers["text"] or [""]
        exact.append(exact_match(said, right, language=arguments.language))
        # No answer that is right has no words to share.
        overlap.append(max(exact[-1], token_f1(said, right, language=arguments.language)))
    return [share("exact match", exact), share("F1 of words", overlap)], seconds_of(trainer), spans


def main() -> None:
    """Fine-tune, answer the held-out questions, print."""
    parser = argument_parser(__doc__, data="SQuAD JSON", epochs=4.0)
    parser.add_argument("--stride", type=int, default=STRIDE, help="tokens that windows of a text share")
    parser.add_argument("--language", choices=ARTICLES, default="en", help="whose articles are not compared")
    parser.add_argument("--n-best", type=int, default=N_BEST, help="how many ends are combined, and spans kept")
    arguments = parser.parse_args()
    parts = load_parts(arguments.data, read_squad, questions, limit=arguments.limit)
    scores, seconds, spans = answer_held_out(arguments, parts)
    held_out = parts["test"]
    print(f"{scores[0]}; {scores[1]}; {len(held_out):,} held-out questions; trained in {seconds:.0f} s")
    for example in held_out.select(range(min(3, len(held_out)))):
        print(f"\n{example['question']}  right: {' | '.join(example['answers']['text']) or '(no answer)'}")
        for span in spans[example["id"]][:3]:
            print(f"  {span.score:6.2f}  {span.text or '(no answer)'}")


if __name__ == "__main__":
    sys.exit(run(main))
