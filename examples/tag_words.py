"""Fine-tune a model to tag words (parts of speech, names), with transformers' own Trainer.

    python examples/tag_words.py runs/world/model                     # names in stories that it makes
    python examples/tag_words.py runs/world/model --made functions    # what a word does in its sentence
    python examples/tag_words.py runs/mine/model es_gsd.conllu        # Universal Dependencies: parts of speech
    python examples/tag_words.py runs/mine/model names.iob2           # or any CoNLL file, or JSON lines: names

A tokenizer divides words; the data has one tag a word. `word_ids` says which word a token is of: the first token of a
word gets its tag, in training and in prediction, the others -100, which no loss counts.

Tags that begin with B- and I- are names: the score is then the F1 of whole names (CoNLL 2003), a name being right if
its kind, its first word and its last word are. Otherwise it is the share of words that are right.
"""

import argparse
import sys
from collections import Counter
from typing import Any

import datasets
from fine_tune import Score, argument_parser, f1, fine_tune, named_labels, open_model, run, seconds_of, share
from labelled_records import load_parts, read_tagged
from made_examples import functions, named
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification

from hf_minilm.evaluation.entities import are_entity_tags, find_entities

MAKERS = {"named": named, "functions": functions}
NOTHING = "O"
Tags = list[list[str]]


def load(source: str | None, limit: int | None, *, made: str = "named") -> datasets.DatasetDict:
    """Load sentences: `tokens`, which are words, and `tags`."""
    return load_parts(source, read_tagged, MAKERS[made], limit=limit)


def first_tokens(word_ids: list[int | None]) -> list[int | None]:
    """Give each token the word that it is the first one of, or None."""
    return [word if place == 0 or word != word_ids[place - 1] else None for place, word in enumerate(word_ids)]


def encode(
    parts: datasets.DatasetDict, tokenizer: Any, numbers: dict[str, int], max_length: int
) -> datasets.DatasetDict:
    """Turn words into token ids, and tags into labels; `first_of` keeps the way back, and no model is given it."""

    def encode_batch(batch: dict[str, Any]) -> Any:
        encoded = tokenizer(batch["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
        encoded["first_of"] = [first_tokens(encoded.word_ids(row)) for row in range(len(batch["tokens"]))]
        encoded["labels"] = [
            [-100 if word is None else numbers[tags[word]] for word in first_of]
            for first_of, tags in zip(encoded["first_of"], batch["tags"], strict=True)
        ]
        return encoded

    return parts.map(encode_batch, batched=True)


def tags_of_words(best: Any, sentences: datasets.Dataset, names: list[str]) -> Tags:
    """Read each word's tag at its first token; a word without one, as it was cut off, is tagged as no name."""
    tags = [[NOTHING] * len(words) for words in sentences["tokens"]]
    for row, first_of in enumerate(sentences["first_of"]):
        for place, word in enumerate(first_of):
            if word is not None:
                tags[row][word] = names[best[row][place]]
    return tags


def score(predicted: Tags, right: Tags) -> Score:
    """Score names by F1, other tags by the share of words; what is drawn again for the interval is whole sentences."""
    if are_entity_tags([tag for tags in right for tag in tags]):
        said, true = ([set(find_entities(tags)) for tags in each] for each in (predicted, right))
        hits = [len(found & there) for found, there in zip(said, true, strict=True)]
        return f1("F1 of names", hits, list(map(len, said)), list(map(len, true)))
    hits = [sum(map(str.__eq__, *pair)) for pair in zip(predicted, right, strict=True)]
    return share("words right", hits, list(map(len, right)))


def tag(arguments: argparse.Namespace, parts: datasets.DatasetDict) -> tuple[list[Score], float]:
    """Fine-tune and measure; the score, and the seconds of the training."""
    names = sorted({tag for part in parts.values() for tags in part["tags"] for tag in tags})
    labels = named_labels(names)
    model, tokenizer = open_model(AutoModelForTokenClassification, arguments, **labels)
    encoded = encode(parts, tokenizer, labels["label2id"], arguments.max_length)
    trainer = fine_tune(
        model,
        tokenizer,
        encoded["train"],
        arguments,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        preprocess_logits_for_metrics=lambda logits, _: logits.argmax(-1),
    )
    best = trainer.predict(encoded["test"]).predictions
    predicted = tags_of_words(best, encoded["test"], names)
    return [score(predicted, parts["test"]["tags"])], seconds_of(trainer)


def main() -> None:
    """Fine-tune, measure, print."""
    parser = argument_parser(__doc__, data="tagged sentences (.conllu, .iob2, .conll, .jsonl)")
    parser.add_argument("--made", choices=MAKERS, default="named", help="what to tag where no file is given")
    arguments = parser.parse_args()
    parts = load(arguments.data, arguments.limit, made=arguments.made)
    scores, seconds = tag(arguments, parts)
    counts = Counter(tag for tags in parts["test"]["tags"] for tag in tags)
    commonest, number = counts.most_common(1)[0]
    print(f"{scores[0]}; {number / counts.total():.3f} of the words are {commonest}")
    print(
        f"{counts.total():,} words in {len(parts['test']):,} held-out sentences; trained on {len(parts['train']):,} "
        f"in {seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(run(main))
