"""From a recipe to what the loop needs: corpus, tokenizer, rows, and a model of the right shape."""

import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.corpus import Corpus, Split
from ..data.objectives import CausalObjective, MaskedObjective, Objective
from ..data.store import TokenStore, build_store
from ..data.tokenizer import load_tokenizer, special_tokens, train_tokenizer
from ..model.configuration_minilm import MiniLMConfig
from ..model.modeling_minilm import MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from .recipe import Recipe


@dataclass(frozen=True)
class Data:
    """A tokenised corpus, and its two parts as rows of the recipe's objective."""

    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    train: Objective
    held_out: Objective


def open_corpus(recipe: Recipe) -> Corpus:
    """Open the corpus that the recipe names; the documents are read later.

    Raises:
        ValueError: If a source cannot be used.
        FileNotFoundError: If a path does not exist.
    """
    settings = recipe.data
    return Corpus(
        recipe.corpora,
        encoding_errors=settings.encoding_errors,
        languages=settings.languages,
        world_documents=settings.world_documents,
        validation_share=settings.validation_share,
        seed=recipe.training.seed,
    )


def prepare_data(recipe: Recipe, folder: Path, *, quiet: bool) -> Data:
    """Train or load the tokenizer, build or reuse the token stores, and pack the rows.

    Args:
        recipe: The settings.
        folder: The run's folder; a trained tokenizer is kept in it, so that a resumed run reads the same ids.
        quiet: Whether to say and show nothing, as all processes but the main one do.
    """
    corpus = open_corpus(recipe)
    tokenizer = _tokenizer(recipe, corpus, folder / "tokenizer", quiet=quiet)
    cache = None if recipe.data.cache_folder is None else Path(recipe.data.cache_folder)
    objectives = []
    splits: tuple[Split, ...] = ("train", "validation")
    for split in splits:
        store = build_store(
            partial(corpus.documents, split),
            tokenizer,
            cache_folder=cache,
            key=f"{corpus.fingerprint()} {split}",
            progress=not quiet,
        )
        if not quiet:
            state = "reused" if store.reused else "built"
            _say(f"{split}: {store.num_documents:,} documents, {store.num_tokens:,} tokens ({state})")
        objectives.append(build_objective(recipe, store, tokenizer))
    for what, count in corpus.skipped.items():
        if not quiet:
            _say(f"skipped: {count:,} {what}")
    return Data(corpus, tokenizer, *objectives)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _tokenizer(recipe: Recipe, corpus: Corpus, folder: Path, *, quiet: bool) -> PreTrainedTokenizerBase:
    if recipe.tokenizer.folder is not None:
        return load_tokenizer(recipe.tokenizer.folder)
    if not folder.exists():
        if not quiet:
            _say(f"training a {recipe.tokenizer_kind} tokenizer on {', '.join(recipe.corpora)}")
        tokenizer = train_tokenizer(
            corpus.documents("train"),
            kind=recipe.tokenizer_kind,
            vocab_size=recipe.tokenizer.vocab_size,
            lowercase=recipe.tokenizer.lowercase,
            max_length=build_config(recipe).max_position_embeddings,
        )
        writing = folder.with_name(".tokenizer.writing")
        shutil.rmtree(writing, ignore_errors=True)
        tokenizer.save_pretrained(writing)
        writing.rename(folder)
    return load_tokenizer(folder)


def build_objective(recipe: Recipe, store: TokenStore, tokenizer: PreTrainedTokenizerBase) -> Objective:
    """Turn a store into rows of the recipe's objective.

    Raises:
        ValueError: If the corpus cannot serve it, as a single document cannot serve next-sentence prediction.
    """
    common: dict[str, Any] = {"row_length": recipe.data.sequence_length, "seed": recipe.training.seed}
    special, settings = special_tokens(tokenizer), recipe.objective
    if settings.name == "causal":
        return CausalObjective(store, special, **common)
    return MaskedObjective(
        store,
        special,
        mask_rate=settings.mask_rate,
        mask_share=settings.mask_share,
        random_share=settings.random_share,
        whole_word=settings.whole_word,
        next_sentence=recipe.next_sentence,
        **common,
    )


def build_config(recipe: Recipe, tokenizer: PreTrainedTokenizerBase | None = None) -> MiniLMConfig:
    """Build the model's configuration; with a tokenizer, of its vocabulary.

    Raises:
        ValueError: If a field is wrong, or the rows are longer than the model's positions.
    """
    fields: dict[str, Any] = {}
    if recipe.objective.name == "causal":
        fields["type_vocab_size"] = 0
    fields["is_causal"] = recipe.objective.name == "causal"
    if tokenizer is not None:
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        fields |= {"vocab_size": len(tokenizer), **ids}
    config = MiniLMConfig.preset(recipe.model.preset, recipe.model.size, **{**fields, **recipe.model.overrides})
    length, longest = recipe.data.sequence_length, config.max_position_embeddings
    if length > longest:
        raise ValueError(
            f"data.sequence_length ({length}) must not exceed the model's positions ({longest}); "
            f"--set model.overrides.max_position_embeddings={length} makes room."
        )
    return config


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, *, attention: str) -> PreTrainedModel:
    """Build a model with initial weights that the seed decides, and with an attention kernel, by its name."""
    torch.manual_seed(recipe.training.seed)
    config = build_config(recipe, tokenizer)
    return model_class(recipe)._from_config(config, attn_implementation=attention)


def model_class(recipe: Recipe) -> type[PreTrainedModel]:
    """Name the class whose loss is the recipe's objective."""
    if recipe.objective.name == "causal":
        return MiniLMForCausalLM
    return MiniLMForPreTraining if recipe.next_sentence else MiniLMForMaskedLM
