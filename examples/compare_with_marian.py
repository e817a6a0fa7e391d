"""Train transformers' own Marian on the pairs of a finished run, for as long, and compare the translations.

    hf-minilm pretrain examples/recipes/translate.yaml --set data.corpus=pairs.tsv --set training.budget=20min
    python examples/compare_with_marian.py runs/translate

The other model has the run's layers, width, heads, tokenizer, training pairs, pairs a step, dropout and label
smoothing, and is trained by `Seq2SeqTrainer` in its fastest form: 16-bit arithmetic where the machine has it, batches
of texts of similar length. Its learning rate follows the same schedule. Both translate the same held-out sources.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from compare_with_peers import Clock
from fine_tune import run
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    MarianConfig,
    MarianMTModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    set_seed,
)

import hf_minilm  # noqa: F401 -- registers the architecture
from hf_minilm.benchmark.machine import measuring_device
from hf_minilm.evaluation.run_corpus import refuse_another_corpus
from hf_minilm.evaluation.translation import TranslationScores, evaluate_translations
from hf_minilm.training.launch import resolve_precision
from hf_minilm.training.preparation import Data, prepare_data
from hf_minilm.training.recipe import Recipe, load_recipe
from hf_minilm.training.schedule import learning_rate_factor

_RATE = 1e-3


def marian_like(config: Any) -> MarianMTModel:
    """Build a Marian of the layers, width and heads of our model's configuration, in its published form otherwise."""
    encoder, decoder = config.encoder, config.decoder
    return MarianMTModel(
        MarianConfig(
            vocab_size=config.vocab_size,
            d_model=decoder.hidden_size,
            encoder_layers=encoder.num_hidden_layers,
            decoder_layers=decoder.num_hidden_layers,
            encoder_attention_heads=encoder.num_attention_heads,
            decoder_attention_heads=decoder.num_attention_heads,
            encoder_ffn_dim=4 * encoder.hidden_size,
            decoder_ffn_dim=4 * decoder.hidden_size,
            max_position_embeddings=decoder.max_position_embeddings,
            activation_function="swish",
            scale_embedding=True,
            dropout=decoder.hidden_dropout,
            pad_token_id=config.pad_token_id,
            eos_token_id=config.eos_token_id,
            decoder_start_token_id=config.decoder_start_token_id,
            forced_eos_token_id=None,
        )
    )


def training_pairs(data: Data, longest: int) -> Iterator[dict[str, Any]]:
    """Tokenise the run's training pairs, without those that it left out."""
    for pair in data.corpus.pairs("train"):
        ids = data.tokenizer(pair.source, text_target=pair.target)
        if max(len(ids["input_ids"]), len(ids["labels"])) <= longest:
            yield {**ids, "length": len(ids["input_ids"])}


def train_marian(
    recipe: Recipe, data: Data, config: Any, *, seconds: float, learning_rate: float, folder: Path
) -> MarianMTModel:
    """Train for a time with AdamW, as many pairs a step as the run had."""
    set_seed(recipe.training.seed)
    model, clock, settings = marian_like(config), Clock(seconds, measuring_device()), recipe.optimizer
    figures = data.train.describe()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    shares = {"warmup_share": settings.warmup_share, "decay_share": settings.decay_share}
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda _: learning_rate_factor(settings.schedule, clock.progress, final_share=settings.final_share, **shares),
    )
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=round(figures.num_sequences / figures.num_rows * recipe.training.batch_rows),
        num_train_epochs=1000,
        label_smoothing_factor=recipe.objective.label_smoothing,
        max_grad_norm=settings.gradient_clip,
        bf16=resolve_precision(recipe.training.precision) == "bf16",
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length",
        save_strategy="no",
        report_to="none",
        logging_steps=100,
        disable_tqdm=True,
    )
    Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=list(training_pairs(data, recipe.data.sequence_length)),
        data_collator=DataCollatorForSeq2Seq(data.tokenizer, model=model),
        optimizers=(optimizer, schedule),
        callbacks=[clock],
    ).train()
    return model


def row(name: str, model: Any, scores: tuple[TranslationScores, ...]) -> str:
    """Write a line of the table."""
    cells = [f"{each.chrf:.1f} / {each.bleu:.1f} / {each.exact_match:.1%}" for each in scores]
    return f"| {name} | {model.num_parameters():,} | " + " | ".join(cells) + " |"


def main() -> None:
    """Train the other model, translate with both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run with objective pairs")
    parser.add_argument("--minutes", type=float, help="training of the other model; the run's own time without it")
    parser.add_argument("--learning-rate", type=float, help=f"of the other model; the run's AdamW's, or {_RATE}")
    parser.add_argument("--translations", type=int, default=1000, help="most held-out sources to translate")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.run / "recipe.yaml")
    budget = recipe.training.budget
    if arguments.minutes is None and budget.kind != "seconds":
        parser.error(f"--minutes must be given, as the run's budget ({budget}) is no time.")
    seconds = float(budget.value) if arguments.minutes is None else 60 * arguments.minutes
    data = prepare_data(recipe, arguments.run, quiet=True)
    refuse_another_corpus(arguments.run, data.corpus.fingerprint())
    ours = AutoModelForSeq2SeqLM.from_pretrained(arguments.run / "model")
    rate = recipe.optimizer.peak if recipe.optimizer.name == "adamw" else _RATE  # Muon's is none for AdamW
    rate = rate if arguments.learning_rate is None else arguments.learning_rate
    training = {"seconds": seconds, "learning_rate": rate, "folder": arguments.run / "marian"}
    theirs = train_marian(recipe, data, ours.config, **training)
    pairs = data.held_out_pairs(arguments.translations)
    tokenizer = AutoTokenizer.from_pretrained(arguments.run / "model")
    beams = (1, recipe.evaluation.num_beams)
    headings = " | ".join(f"chrF / BLEU / exact, beams: {number}" for number in beams)
    print(f"Marian: {seconds:,.0f} s, AdamW at {rate:g}\n")
    print(f"| Model | Parameters | {headings} |\n|---|---|---|---|")
    for name, model in (("hf_minilm", ours), ("Marian", theirs)):
        scores, _ = evaluate_translations(model, tokenizer, pairs, beams=beams)
        print(row(name, model, scores), flush=True)


if __name__ == "__main__":
    sys.exit(run(main))
