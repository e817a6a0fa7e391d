"""Go on pre-training a finished model on text of another kind, as its first training went, with Trainer.

    python examples/adapt_to_domain.py runs/world/model                 # on stories of another kind that it makes
    python examples/adapt_to_domain.py runs/mine/model letters.jsonl    # on records with `text`
    python examples/classify_texts.py runs/adapt_to_domain reviews.jsonl    # then as ever

An encoder predicts masked tokens, a decoder the next one; which of them a model is, its configuration says. Before a
task with few labels, this brings a general model nearer to the task's texts, which need no labels (Gururangan et al.
2020, arXiv:2004.10964). `hf-minilm pretrain` is for a model from the start: its tokenizer and schedule are the run's
own. Here both stay as they are, and the learning rate rises anew to a lower peak.

Printed is the loss on held-out texts before and after, with the same tokens masked.
"""

import sys
from typing import Any

from fine_tune import Score, argument_parser, fine_tune, open_model, run, seconds_of, share
from labelled_records import load_parts, read_records
from made_examples import other_stories
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    set_seed,
)

from hf_minilm.data.sequences import IGNORED
from hf_minilm.evaluation.language_model import evaluating, prediction_logits, predicts_next_token


def auto_class_of(config: Any) -> Any:
    """Choose the head by what the saved model was: ours with two heads keeps both, of which one is trained on."""
    names = config.architectures or []
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return AutoModelForCausalLM
    two_heads = config.model_type == "hf_minilm" and any(name.endswith("ForPreTraining") for name in names)
    return AutoModelForPreTraining if two_heads else AutoModelForMaskedLM


def held_out_loss(model: PreTrainedModel, rows: Any, collator: Any, name: str) -> Score:
    """Score by nats per predicted token; what is masked is the same at every call."""
    set_seed(0)
    shift, nats, counts = int(predicts_next_token(model)), [], []
    with evaluating(model) as device:
        for first in range(0, len(rows), 32):
            batch = collator([rows[place] for place in range(first, min(first + 32, len(rows)))])
            labels = batch.pop("labels")[:, shift:]
            logits = prediction_logits(model(**batch.to(device))).float().cpu()[:, : labels.shape[1]]
            losses = nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")  # [B, T]
            nats += losses.sum(-1).tolist()
            counts += (labels != IGNORED).sum(-1).tolist()
    return share(name, nats, counts)


def main() -> None:
    """Measure, go on training, measure again, print."""
    parser = argument_parser(__doc__, data="records with text (.jsonl, .tsv)")
    parser.add_argument("--mask-rate", type=float, default=0.3, help="share of the tokens to predict; encoders only")
    arguments = parser.parse_args()
    parts = load_parts(arguments.data, lambda file: read_records(file, ("text",)), other_stories, limit=arguments.limit)
    auto_class = auto_class_of(AutoConfig.from_pretrained(arguments.model))
    model, tokenizer = open_model(auto_class, arguments)
    # What is too long goes on in a further row.
    rows = parts.map(
        lambda batch: windows(tokenizer, batch["text"], arguments.max_length), batched=True, remove_columns="text"
    )
    masked = auto_class is not AutoModelForCausalLM
    rate = arguments.mask_rate if masked else None
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=masked, mlm_probability=rate)
    before = held_out_loss(model, rows["test"], collator, "before: nats per predicted token")
    trainer = fine_tune(model, tokenizer, rows["train"], arguments, data_collator=collator)
    after = held_out_loss(model, rows["test"], collator, "after: nats per predicted token")
    print(f"{before}; {after}")
    print(
        f"{len(rows['test']):,} held-out rows; trained on {len(rows['train']):,} in {seconds_of(trainer):.0f} s; saved "
        f"in {arguments.output}"
    )


def windows(tokenizer: Any, texts: list[str], max_length: int) -> dict[str, Any]:
    """Turn texts into rows of token ids, as many as they need."""
    encoded = tokenizer(texts, truncation=True, max_length=max_length, return_overflowing_tokens=True)
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


if __name__ == "__main__":
    sys.exit(run(main))
