"""Fine-tune a classifier by LoRA, with PEFT.

    python examples/adapt_with_lora.py runs/world/model                  # on stories that it makes, by their topic
    python examples/adapt_with_lora.py runs/mine/model reviews.jsonl     # on records with `text` and `label`

A few small matrices are trained beside the model's own, which stay as they are (Hu et al. 2021, arXiv:2106.09685). What
is saved is this adapter, some per cent of the model. It is then put onto the model anew, added into its matrices, and
the merged model, an ordinary one, is saved beside it and says the same. The task is that of `classify_texts.py`.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from classify_texts import encode, load
from fine_tune import argument_parser, fine_tune, matthews, named_labels, open_model, run, seconds_of, share
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

NEW_PARTS = ("classifier", "score", "pooler")
"""Heads that begin with initial weights, which no small change makes good: they are trained whole."""


def with_adapter(model: PreTrainedModel, *, rank: int) -> PeftModel:
    """Put an adapter beside every matrix of the layers, whatever the model calls them."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    new = {part for part in NEW_PARTS if any(part in name.split(".") for name in names)}
    inner = [name for name in names if new.isdisjoint(name.split("."))]
    configuration = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=2 * rank, target_modules=inner, modules_to_save=sorted(new)
    )
    return get_peft_model(model, configuration)


def main() -> None:
    """Adapt, measure, merge, measure again, print."""
    parser = argument_parser(__doc__, data="records with text and label (.jsonl, .tsv)", learning_rate=2e-3)
    parser.add_argument("--rank", type=int, default=8, help="rank of the adapters' matrices")
    arguments = parser.parse_args()
    parts = load(arguments.data, arguments.limit)
    head = named_labels(parts["train"].features["label"].names)
    model, tokenizer = open_model(AutoModelForSequenceClassification, arguments, **head)
    encoded, right = encode(parts, tokenizer, arguments.max_length), np.array(parts["test"]["label"])
    adapted = with_adapter(model, rank=arguments.rank)
    trained, total = adapted.get_nb_trainable_parameters()
    trainer = fine_tune(adapted, tokenizer, encoded["train"], arguments)
    before = trainer.predict(encoded["test"]).predictions

    base, _ = open_model(AutoModelForSequenceClassification, arguments, **head)
    merged = PeftModel.from_pretrained(base, arguments.output).merge_and_unload().eval()
    folder = Path(arguments.output) / "merged"
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    difference = np.abs(predict(merged, tokenizer, parts["test"]["text"], arguments.max_length) - before).max()
    print(f"{trained:,} of {total:,} parameters trained ({trained / total:.1%}), in {seconds_of(trainer):.0f} s")
    print(f"merged into {folder}: logits differ by at most {difference:.1e}")
    print(f"{share('accuracy', before.argmax(-1) == right)}; {matthews(before.argmax(-1), right)}")


@torch.no_grad()
def predict(model: PreTrainedModel, tokenizer: object, texts: list[str], max_length: int) -> np.ndarray:
    """Give the logits of texts, one batch at a time, as someone who has nothing but the model would."""
    logits = []
    for first in range(0, len(texts), 64):
        batch = texts[first : first + 64]
        inputs = tokenizer(batch, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
        logits.append(model(**inputs.to(model.device)).logits.cpu().numpy())
    return np.concatenate(logits)


if __name__ == "__main__":
    sys.exit(run(main))
