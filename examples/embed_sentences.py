"""Turn a model into one of sentence embeddings: texts that mean the same lie close, with sentence-transformers.

    python examples/embed_sentences.py runs/world/model                # Spanish stories and their English translations
    python examples/embed_sentences.py runs/mine/model pairs.jsonl     # records with text and text_pair, alike

Each text is read alone, and its embedding is the mean of its tokens' vectors. Trained is that a text's own partner is
nearer than the partners of all others in the batch (InfoNCE; Henderson et al. 2017, arXiv:1705.00652, section 4.4), so
larger batches ask harder questions. Printed is how often the nearest of all held-out partners is the right one, before
and after. The result opens with `SentenceTransformer(folder)`.
"""

import sys
from typing import Any

import numpy as np
import torch
from fine_tune import Score, argument_parser, attention_of, run, seconds_of, share, trainer_settings
from labelled_records import load_parts, read_records
from made_examples import translations
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import AutoConfig, set_seed

FIELDS = ("text", "text_pair")


def nearest_is_right(model: SentenceTransformer, first: list[str], second: list[str], name: str) -> Score:
    """Score whether the nearest of all second texts, by cosine, is each first text's own."""
    queries, keys = (
        model.encode(texts, normalize_embeddings=True, show_progress_bar=False) for texts in (first, second)
    )
    return share(name, (queries @ keys.T).argmax(-1) == np.arange(len(first)))


def main() -> None:
    """Train, measure, print."""
    parser = argument_parser(__doc__, data="records with text and text_pair (.jsonl, .tsv)", batch_size=64)
    arguments = parser.parse_args()
    for option in ("untrained", "grouped"):
        if getattr(arguments, option):
            raise ValueError(f"--{option} (given) must be absent, as it has no effect here; leave it out.")
    parts = load_parts(arguments.data, lambda file: read_records(file, FIELDS), translations, limit=arguments.limit)
    set_seed(arguments.seed)
    texts = [list(parts["test"][field]) for field in FIELDS]
    before = nearest_is_right(SentenceTransformer(arguments.model), *texts, "before: nearest is right")
    attention = attention_of(AutoConfig.from_pretrained(arguments.model), arguments)
    options: dict[str, Any] = {"attn_implementation": attention, "dtype": torch.float32}
    model = SentenceTransformer(arguments.model, model_kwargs=options)
    model.max_seq_length = arguments.max_length
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            **trainer_settings(arguments),
            # The same text twice in a batch would be a wrong answer that is right.
            batch_sampler=BatchSamplers.NO_DUPLICATES,
        ),
        train_dataset=parts["train"].select_columns(list(FIELDS)),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.train()
    model.save_pretrained(arguments.output)
    after = nearest_is_right(SentenceTransformer(arguments.output), *texts, "after: nearest is right")
    print(f"{before}; {after}; by chance {1 / len(texts[0]):.3f}")
    print(
        f"{len(texts[0]):,} held-out pairs; trained on {len(parts['train']):,} in {seconds_of(trainer):.0f} s; "
        f"saved in {arguments.output}"
    )


if __name__ == "__main__":
    sys.exit(run(main))
