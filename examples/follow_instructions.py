"""Fine-tune a decoder to do what a prompt asks, by TRL's `SFTTrainer`.

    hf-minilm pretrain examples/recipes/causal.yaml
    python examples/follow_instructions.py runs/world_causal/model         # questions on stories that it makes
    python examples/follow_instructions.py runs/mine/model tasks.jsonl     # records with prompt and completion

A prompt is given and a completion is learnt: only the completion's tokens, and the end token after them, have a loss.
Printed is the share of the held-out completions that greedy generation writes exactly, and the first of them.
"""

import sys
from typing import Any

import torch
from fine_tune import argument_parser, open_model, run, seconds_of, share, trainer_settings
from labelled_records import load_parts, read_records
from made_examples import instructions
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl import SFTConfig, SFTTrainer


@torch.no_grad()
def complete(model: PreTrainedModel, tokenizer: Any, prompts: list[str], *, longest: int) -> list[str]:
    """Go on with each prompt until the end token, by the likeliest token each time."""
    model.eval().set_attn_implementation("sdpa")  # generation keeps a cache, which attention without padding knows not
    written = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
        inputs.pop("token_type_ids", None)
        output = model.generate(
            **inputs,
            max_new_tokens=longest,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        written.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return written


def main() -> None:
    """Train, generate, print."""
    parser = argument_parser(__doc__, data="records with prompt and completion (.jsonl, .tsv)", epochs=2.0)
    parser.add_argument("--generate", type=int, default=200, help="most held-out prompts to answer")
    arguments = parser.parse_args()
    fields = ("prompt", "completion")
    parts = load_parts(arguments.data, lambda file: read_records(file, fields), instructions, limit=arguments.limit)
    model, tokenizer = open_model(AutoModelForCausalLM, arguments)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**trainer_settings(arguments), max_length=arguments.max_length, activation_checkpointing=False),
        train_dataset=parts["train"],
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
    test = parts["test"].select(range(min(arguments.generate, len(parts["test"]))))
    longest = 1 + max(len(tokenizer(text)["input_ids"]) for text in test["completion"])
    written = complete(model, tokenizer, test["prompt"], longest=longest)
    right = [said.strip() == true.strip() for said, true in zip(written, test["completion"], strict=True)]
    print(f"{share('exactly right', right)}; {len(test):,} held-out prompts; trained in {seconds_of(trainer):.0f} s")
    for prompt, said, true in list(zip(test["prompt"], written, test["completion"], strict=True))[:3]:
        print(f"\n{prompt}\n  wrote: {said.strip()}\n  right: {true.strip()}")


if __name__ == "__main__":
    sys.exit(run(main))
