"""From a recipe to what the loop needs: corpus, tokenizer, rows, and a model of the right shape."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.corpus import Corpus
from ..data.document import Document
from ..data.objectives import CausalObjective, MaskedObjective, Objective
from ..data.pairs import PairCorpus
from ..data.sequence_to_sequence import DenoisingObjective, PairObjective
from ..data.sources import Split
from ..data.store import TokenStore, build_store
from ..data.tokenizer import load_tokenizer, refuse_other_tokenizer, sentinel_ids, special_tokens, train_tokenizer
from ..data.world import World
from ..model.configuration_minilm import MiniLMConfig
from ..model.configuration_minilm_seq2seq import MiniLMSeq2SeqConfig
from ..model.modeling_minilm import MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from ..model.modeling_minilm_seq2seq import MiniLMForConditionalGeneration
from ..one_line import one_line
from ..yaml_text import write_inline
from .checkpoint import find_damage, list_checkpoints
from .recipe import Recipe

SIDES = ("source", "target")
"""The texts of a pair."""


NUM_SENTINELS = 100
"""Tokens that stand for the gaps of a text, as many as T5 has (Raffel et al. 2020, section 3.1.4)."""

_TOO_LONG = "pairs longer than data.sequence_length"
_WORTH_SAYING = 1e-3  # of all tokens


@dataclass(frozen=True)
class Data:
    """A tokenised corpus, and its two parts as rows of the recipe's objective.

    Attributes:
        corpus: The corpus.
        tokenizer: The tokenizer.
        train: The part to train on.
        held_out: The other part.
        notes: What the report has to say of the text; nothing where the preparation was quiet.
    """

    corpus: Corpus | PairCorpus
    tokenizer: PreTrainedTokenizerBase
    train: Objective
    held_out: Objective
    notes: tuple[str, ...] = ()

    @property
    def world(self) -> World | None:
        """The generator of the documents, where the corpus is `builtin:world` and nothing else."""
        return self.corpus.world if isinstance(self.corpus, Corpus) else None

    def held_out_documents(self) -> Iterator[Document]:
        """Stream the documents that the model was not trained on; there are none in a corpus of pairs."""
        return self.corpus.documents("validation") if isinstance(self.corpus, Corpus) else iter(())

    def held_out_pairs(self, number: int) -> list[tuple[str, str]]:
        """List sources that the model was not trained on, with their targets, spread evenly over a corpus of pairs.

        The first ones would not do: a corpus may be sorted by length. Pairs that are too long for a row are not among
        them: the model has learnt from none of their length, and may have no positions for it.
        """
        if not isinstance(self.corpus, PairCorpus) or not isinstance(self.held_out, PairObjective):
            return []
        fitting = self.held_out.pairs
        number = min(number, len(fitting))
        chosen = {int(fitting[len(fitting) * each // number]) for each in range(number)}
        pairs = enumerate(self.corpus.pairs("validation"))
        return [(pair.source, pair.target) for place, pair in pairs if place in chosen]


def open_corpus(recipe: Recipe) -> Corpus | PairCorpus:
    """Open the corpus that the recipe names; the documents are read later.

    Raises:
        ValueError: If a source cannot be used.
        FileNotFoundError: If a path does not exist.
    """
    settings = recipe.data
    common: dict[str, Any] = {
        "encoding_errors": settings.encoding_errors,
        "world_documents": settings.world_documents,
        "validation_share": settings.validation_share,
        "seed": recipe.training.seed,
    }
    if recipe.objective.name == "pairs":
        return PairCorpus(recipe.corpora, fields=settings.pair_fields, **common)
    return Corpus(recipe.corpora, languages=settings.languages, **common)


def prepare_data(recipe: Recipe, folder: Path, *, quiet: bool, corpus: Corpus | PairCorpus | None = None) -> Data:
    """Train or load the tokenizer, build or reuse the token stores, and pack the rows.

    Args:
        recipe: The settings.
        folder: The run's folder; a trained tokenizer is kept in it, so that a resumed run reads the same ids.
        quiet: Whether to say and show nothing, as all processes but the main one do.
        corpus: That of the recipe, where it is open already.
    """
    corpus = open_corpus(recipe) if corpus is None else corpus
    tokenizer = _tokenizer(recipe, corpus, folder / "tokenizer", quiet=quiet)
    _refuse_missing_tokens(recipe, tokenizer)
    _refuse_tokenizer_of_another_model(folder / "checkpoints", tokenizer)
    stores: dict[Split, list[TokenStore]] = {"train": [], "validation": []}
    objectives = []
    for split, sides in stores.items():
        for side in SIDES if isinstance(corpus, PairCorpus) else (None,):
            sides.append(_store(recipe, corpus, tokenizer, split, side, quiet=quiet))
        objectives.append(build_objective(recipe, sides, tokenizer))
    notes: tuple[str, ...] = ()
    if not quiet:
        notes = _describe(recipe, corpus, tokenizer, stores=stores, objectives=objectives)
    train, held_out = objectives
    return Data(corpus, tokenizer, train, held_out, notes)


def _describe(
    recipe: Recipe,
    corpus: Corpus | PairCorpus,
    tokenizer: PreTrainedTokenizerBase,
    *,
    stores: dict[Split, list[TokenStore]],
    objectives: Sequence[Objective],
) -> tuple[str, ...]:
    """Say what became of the text, and how much of it there is; give what the report has to say too."""
    for what, count in corpus.skipped.items():
        _say(f"skipped: {count:,} {what}")
    for what, count in corpus.changed.items():
        _say(f"changed: {count:,} {what}")
    train, held_out = objectives
    for what, count in _left_out(train).items():
        if count:
            _say(f"left out of the training: {count:,} {what}")
    _say(describe_amount(recipe, stores["train"], train))
    notes = []
    if isinstance(held_out, PairObjective) and held_out.num_too_long:
        notes.append(f"{held_out.num_too_long:,} held-out {_TOO_LONG} are in no figure")
    unknown, advice = f"are unknown ({tokenizer.unk_token})", _advice_on_unknown(recipe)
    share, of_held_out = (
        _unknown_share(sides, tokenizer) for sides in (stores["train"] + stores["validation"], stores["validation"])
    )
    if share > _WORTH_SAYING:
        _say(f"{share:.1%} of the tokens {unknown}{advice}")
    if of_held_out > _WORTH_SAYING:
        notes.append(f"{of_held_out:.1%} of the held-out tokens {unknown}, whose text bits per byte leaves out{advice}")
    return tuple(notes)


def describe_amount(recipe: Recipe, stores: Sequence[TokenStore], objective: Objective) -> str:
    """Say how much text there is to train on and, where the budget is no time, how often it will be read.

    Args:
        recipe: The settings.
        stores: The text, both sides of pairs.
        objective: Its rows.
    """
    num_bytes, num_tokens = sum(int(store.num_bytes.sum()) for store in stores), sum(s.num_tokens for s in stores)
    size = f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e5 else f"{num_bytes:,} bytes"
    what = "documents" if len(stores) == 1 else "pairs"
    line = f"text to train on: {size}, {num_tokens:,} tokens in {stores[0].num_documents:,} {what}"
    budget = recipe.training.budget
    if budget.kind == "seconds":
        return line
    positions_of_a_step = recipe.training.batch_rows * objective.positions_per_row
    positions = budget.value * (positions_of_a_step if budget.kind == "steps" else 1)
    epochs = positions / (objective.rows_in_epoch(0) * objective.positions_per_row)
    number = f"{epochs:,.0f}" if epochs >= 10 else f"{epochs:.2g}"
    return f"{line}; a budget of {budget} is about {number} epochs (readings of all of it)"


def _unknown_share(stores: Sequence[TokenStore], tokenizer: PreTrainedTokenizerBase) -> float:
    """Give the share of a part's tokens that stand for what the vocabulary cannot spell."""
    unknown = sum(store.count(tokenizer.unk_token_id) for store in stores)
    return unknown / sum(store.num_tokens for store in stores)


def _advice_on_unknown(recipe: Recipe) -> str:
    """Name what has fewer unknown tokens, if anything has."""
    if recipe.tokenizer.folder is not None:
        return "; a tokenizer trained on this text, without tokenizer.folder, has fewer"
    if recipe.tokenizer_kind == "wordpiece":
        return "; tokenizer.kind=unigram has next to none"
    return "; tokenizer.kind=bytelevel_bpe has none" if recipe.is_sequence_to_sequence else ""


def _refuse_missing_tokens(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError for a tokenizer without a special token of the objective, before a corpus is read with it."""
    needed = {
        "masked": ("cls_token", "sep_token", "mask_token", "pad_token"),
        "causal": ("eos_token",),
        "pairs": ("eos_token", "pad_token"),
        "denoising": ("eos_token", "pad_token"),
    }[recipe.objective.name]
    missing = [name for name in needed if getattr(tokenizer, f"{name}_id") is None]
    if missing:
        raise ValueError(
            f"{missing[0]} of tokenizer.folder ({recipe.tokenizer.folder}) must exist for objective "
            f"{recipe.objective.name}, and is None; add it to a copy of the tokenizer, or leave tokenizer.folder out."
        )


def _refuse_tokenizer_of_another_model(checkpoints: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Compare the tokenizer with that of the newest checkpoint that has one; a damaged one is not looked at.

    What AutoTokenizer reads, the model's configuration too, is JSON.
    """
    for checkpoint in reversed(list_checkpoints(checkpoints)):
        if (checkpoint / "tokenizer.json").is_file() and find_damage(checkpoint, suffix=".json") is None:
            refuse_other_tokenizer(tokenizer, load_tokenizer(checkpoint), where=checkpoint)
            return


def _store(
    recipe: Recipe,
    corpus: Corpus | PairCorpus,
    tokenizer: PreTrainedTokenizerBase,
    split: Split,
    side: str | None,
    *,
    quiet: bool,
) -> TokenStore:
    """Build or reuse the token store of a part of a corpus; of pairs, of one side, pair for pair."""
    cache = None if recipe.data.cache_folder is None else Path(recipe.data.cache_folder).expanduser()
    part = split if side is None else f"{split} {side}"
    store = build_store(
        partial(_texts, corpus, split, side),
        tokenizer,
        cache_folder=cache,
        key=f"{corpus.fingerprint()} {part}",
        progress=not quiet,
        keep_empty=side is not None,
    )
    if not quiet:
        state = "reused" if store.reused else "built"
        _say(f"{part}: {store.num_documents:,} documents, {store.num_tokens:,} tokens ({state})")
    return store


def _texts(corpus: Corpus | PairCorpus, split: Split, side: str | None) -> Iterator[Document]:
    if isinstance(corpus, Corpus):
        yield from corpus.documents(split)
    else:
        for pair in corpus.pairs(split):
            yield Document((getattr(pair, str(side)),), f"{split} {side}")
    corpus.check_unchanged()  # or the store would have the name of another text


def _left_out(objective: Objective) -> dict[str, int]:
    """Say what an objective could not use, by how its counters are called."""
    names = {
        "num_empty": "pairs without tokens on a side",
        "num_too_long": _TOO_LONG,
        "num_too_short": "texts too short for a gap",
    }
    return {what: getattr(objective, name, 0) for name, what in names.items()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _tokenizer(recipe: Recipe, corpus: Corpus | PairCorpus, folder: Path, *, quiet: bool) -> PreTrainedTokenizerBase:
    if recipe.tokenizer.folder is not None:
        return load_tokenizer(Path(recipe.tokenizer.folder).expanduser(), what="tokenizer.folder")
    if not folder.exists():
        if not quiet:
            _say(f"training a {recipe.tokenizer_kind} tokenizer on {', '.join(recipe.corpora)}")
        tokenizer = train_tokenizer(
            _all_texts(corpus),
            kind=recipe.tokenizer_kind,
            vocab_size=recipe.tokenizer.vocab_size,
            lowercase=recipe.tokenizer.lowercase,
            max_length=longest_text(build_config(recipe)),
            for_pairs=recipe.is_sequence_to_sequence,
            num_sentinels=NUM_SENTINELS if recipe.objective.name == "denoising" else 0,
        )
        writing = folder.with_name(".tokenizer.writing")
        shutil.rmtree(writing, ignore_errors=True)
        tokenizer.save_pretrained(writing)
        writing.rename(folder)
    return load_tokenizer(folder)


def _all_texts(corpus: Corpus | PairCorpus) -> Iterator[Document]:
    """Stream the texts of the training part, both sides of a pair as one document."""
    if isinstance(corpus, Corpus):
        return corpus.documents("train")
    return (Document((pair.source, pair.target), "train") for pair in corpus.pairs("train"))


def build_objective(recipe: Recipe, stores: Sequence[TokenStore], tokenizer: PreTrainedTokenizerBase) -> Objective:
    """Turn a store, or the two of pairs, into rows of the recipe's objective.

    Raises:
        ValueError: If the corpus cannot serve it, as a single document cannot serve next-sentence prediction.
    """
    common: dict[str, Any] = {"row_length": recipe.data.sequence_length, "seed": recipe.training.seed}
    special, settings = special_tokens(tokenizer), recipe.objective
    store, *targets = stores
    if settings.name == "pairs":
        return PairObjective(store, targets[0], special, **common)
    if settings.name == "causal":
        return CausalObjective(store, special, **common)
    if settings.name == "denoising":
        return DenoisingObjective(
            store,
            special,
            noise_share=settings.noise_share,
            span_length=settings.span_length,
            sentinels=sentinel_ids(tokenizer),
            **common,
        )
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


def build_config(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase | None = None
) -> MiniLMConfig | MiniLMSeq2SeqConfig:
    """Build the model's configuration; with a tokenizer, of its vocabulary.

    Raises:
        ValueError: If a field is wrong, or the rows are longer than the model's positions.
    """
    fields: dict[str, Any] = {}
    if tokenizer is not None:
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        fields |= {"vocab_size": len(tokenizer), **ids}
    preset: Any = MiniLMSeq2SeqConfig.preset
    if not recipe.is_sequence_to_sequence:
        preset = MiniLMConfig.preset
        fields["is_causal"] = recipe.objective.name == "causal"
        if fields["is_causal"]:
            fields["type_vocab_size"] = 0
    try:
        config = preset(recipe.preset, recipe.model.size, **{**fields, **recipe.model.overrides})
    except (StrictDataclassError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(
            f"model.overrides ({write_inline(recipe.model.overrides)}) must be fields of the model with values of "
            f"their types; correct them ({one_line(error)})."
        ) from error
    length, longest = recipe.data.sequence_length, longest_text(config)
    if length > longest:
        raise ValueError(
            f"data.sequence_length ({length}) must not exceed the model's positions ({longest}); "
            f"--set model.overrides.max_position_embeddings={length} makes room."
        )
    return config


def longest_text(config: MiniLMConfig | MiniLMSeq2SeqConfig) -> int:
    """Give the most positions of a text; of an encoder-decoder, what both stacks can take."""
    stacks = (config,) if isinstance(config, MiniLMConfig) else (config.encoder, config.decoder)
    return min(stack.max_position_embeddings for stack in stacks)


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, *, attention: str) -> PreTrainedModel:
    """Build a model with initial weights that the seed decides, and with an attention kernel, by its name."""
    torch.manual_seed(recipe.training.seed)
    model = model_class(recipe)._from_config(build_config(recipe, tokenizer), attn_implementation=attention)
    if isinstance(model.config, MiniLMSeq2SeqConfig):
        # As `from_pretrained` does, so that a run which went on writes the same configuration.
        model.config.encoder.dtype = model.config.decoder.dtype = model.dtype
    return model


def model_class(recipe: Recipe) -> type[PreTrainedModel]:
    """Name the class whose loss is the recipe's objective."""
    if recipe.is_sequence_to_sequence:
        return MiniLMForConditionalGeneration
    if recipe.objective.name == "causal":
        return MiniLMForCausalLM
    return MiniLMForPreTraining if recipe.next_sentence else MiniLMForMaskedLM
