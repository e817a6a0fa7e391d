"""The proof that ends every conversion: both models compute the same, in float32, on text and on random tokens.

Shapes: B batch, T positions, E hidden size, V vocabulary.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..model.layers import pooling_of
from .architecture import Architecture, Head, Inputs

TOLERANCE = 2e-5
"""Largest difference that rounding explains, as a share of the largest value of the same output."""

GREEDY_TOKENS = 32
SENTENCES = (
    "The keys to the old cabinet were on the table, and nobody had seen them since the morning.",
    "Ana lost her umbrella in the park.",
    "In 1998 it rained for 17 days; the river rose 3.5 metres.",
    "Las llaves del armario viejo estaban sobre la mesa, y nadie las había visto desde la mañana.",
    "El niño comió piñas y pingüinos de azúcar.",
    "¿Quién abrió la puerta? No lo sé.",
)
"""Real text, English and Spanish, with accents, digits and marks."""

_ROWS, _LONGEST = 4, 16  # of a random batch, and tokens of its longest row
_PROMPT_TOKENS = 6
_LARGE = 50_000_000  # parameters
_SPANS = ("start_logits", "end_logits")  # [B, T], a number a token
_SEED = 7


@dataclass
class Proof:
    """What was compared, and how far apart the two models were.

    Attributes:
        differences: Largest difference of each output over all inputs, absolute.
        shares: The same as a share of the output's largest value.
        inputs: What the models read, every other row padded on the left, and how many tokens of it.
        greedy_tokens: Tokens that both wrote, of each of `prompts` prompts; 0 where the models write none.
        greedy_equal: How many of them are equal.
        prompts: Number of prompts.
        notes: What was left out, and why.
    """

    differences: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    greedy_tokens: int = 0
    greedy_equal: int = 0
    prompts: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether something was compared, all differences are those of rounding, and all greedy tokens are equal."""
        is_close = all(share <= TOLERANCE for share in self.shares.values())  # false of a NaN
        return bool(self.shares) and is_close and self.greedy_equal == self.greedy_tokens * self.prompts

    def to_json(self) -> dict[str, Any]:
        """Give what `conversion.json` says of it."""
        return {
            "dtype": "float32",
            "tokens_read": self.inputs,
            "largest_difference": self.differences,
            "largest_difference_as_share_of_largest_value": self.shares,
            "tolerance_of_share": TOLERANCE,
            "greedy": {"prompts": self.prompts, "tokens_each": self.greedy_tokens, "equal": self.greedy_equal},
            "notes": self.notes,
        }

    def to_text(self) -> Iterator[str]:
        """Say it in lines for a person."""
        read = ", ".join(f"{count} tokens of {name}" for name, count in self.inputs.items())
        yield f"compared in float32 on {read}, padded on the right or left"
        for name, difference in self.differences.items():
            yield f"{name}: largest difference {difference:.1e}, {self.shares[name]:.1e} of the largest value"
        if self.greedy_tokens:
            written = f"{self.greedy_tokens} tokens after each of {self.prompts} prompts"
            yield f"greedy: {self.greedy_equal} equal, of {written}"
        yield from self.notes


@torch.no_grad()
def prove(
    native: PreTrainedModel,
    ours: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    architecture: Architecture,
    head: Head,
) -> Proof:
    """Run both models on the same inputs and compare.

    Args:
        native: In float32, in evaluation mode.
        ours: Likewise.
        tokenizer: Makes real inputs; without one there are random ones only.
        architecture: Says how inputs differ.
        head: Says which class this is.

    Raises:
        ValueError: If they differ by more than `TOLERANCE`, or write other tokens.
    """
    proof = Proof(notes=list(architecture.notes))
    kinds = _all_rows(native, ours, tokenizer, proof)
    reads_padding = head.reads_padding and pooling_of(ours.config) == "first"
    for kind, rows in kinds.items():
        for batch in _batches(rows, native, head):
            inputs = batch_of(batch, native)
            theirs = _run(native, inputs, head)
            mine = _run(ours, architecture.inputs_of_ours(inputs, native.config), head)
            mine = architecture.outputs_of_ours(mine, ours.config, head)
            _compare(proof, theirs, mine, inputs["attention_mask"].bool(), reads_padding=reads_padding)
        proof.inputs[kind] = sum(map(len, rows))
    if reads_padding:
        proof.notes.append(
            f"padding on the left: {head.native} takes it for the first token, {head.ours} does not, so classes differ"
        )
    if native.can_generate() and ours.can_generate():
        _compare_greedy(proof, native, ours, next(reversed(kinds.values())))
    if not proof.holds:
        raise ValueError(f"both models must compute the same, and do not: {'; '.join(proof.to_text())}.")
    return proof


def _all_rows(
    native: PreTrainedModel, ours: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, proof: Proof
) -> dict[str, list[list[int]]]:
    config = native.config
    longest = min(_LONGEST, most_positions(ours))
    rows = {"random rows": random_rows(config, longest)}
    if tokenizer is None:
        proof.notes.append("no tokenizer lies beside the model: no text was compared")
        return rows
    texts = [row[:longest] for row in token_ids(tokenizer)]
    kept = [row for row in texts if row and max(row) < config.vocab_size]
    if len(kept) < len(texts):
        proof.notes.append(f"{len(texts) - len(kept)} sentences have tokens outside the vocabulary and were left out")
    return {**rows, "text": kept} if kept else rows


def token_ids(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Read the sentences; how long a model's texts may be is of no interest here."""
    return [list(tokenizer(text, verbose=False)["input_ids"]) for text in SENTENCES]


def _batches(rows: list[list[int]], native: PreTrainedModel, head: Head) -> list[list[list[int]]]:
    """Give rows as one batch, or one by one where a classifier could not tell padding."""
    if head.ours == "MiniLMForSequenceClassification" and native.config.pad_token_id is None:
        return [[row] for row in rows]
    return [rows]


def most_positions(ours: PreTrainedModel) -> int:
    """Count the tokens of the longest row that a model of ours, and so the native one, surely reads."""
    config = ours.config
    stacks = [config.encoder, config.decoder] if config.is_encoder_decoder else [config]
    return min(stack.max_position_embeddings for stack in stacks)


def random_rows(config: Any, longest: int) -> list[list[int]]:
    """Draw rows of unequal lengths, without the padding token."""
    generator = torch.Generator().manual_seed(_SEED)
    pad = config.pad_token_id
    lengths = [max(longest - 3 * row, 1) for row in range(_ROWS)]
    drawn = [torch.randint(0, config.vocab_size, (length,), generator=generator).tolist() for length in lengths]
    return [[(token + 1) % config.vocab_size if token == pad else token for token in row] for row in drawn]


def batch_of(rows: Sequence[Sequence[int]], native: PreTrainedModel) -> Inputs:
    """Pad rows to [B, T], every other one on the left, with a mask; with two segments where the model tells them."""
    pad, longest = native.config.pad_token_id or 0, max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        first = longest - len(tokens) if row % 2 else 0
        places = slice(first, first + len(tokens))
        ids[row, places], mask[row, places] = torch.tensor(list(tokens)), 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if (getattr(native.config, "type_vocab_size", None) or 0) > 1:
        half = mask.cumsum(1) > mask.sum(1, keepdim=True) // 2
        inputs["token_type_ids"] = (half & mask.bool()).long()
    if native.config.is_encoder_decoder:
        size = getattr(native.config, "decoder_vocab_size", native.config.vocab_size)
        inputs["decoder_input_ids"] = ids[:, : max(longest // 2, 1)] % size
    return {name: tensor.to(native.device) for name, tensor in inputs.items()}


def _run(model: PreTrainedModel, inputs: Inputs, head: Head) -> dict[str, Any]:
    if head.ours == "MiniLMForMultipleChoice":
        inputs = {name: tensor[None] for name, tensor in inputs.items()}  # one question, a row a choice
    return dict(model(**inputs, output_hidden_states=True, use_cache=False))


def _compare(
    proof: Proof, theirs: dict[str, Any], mine: dict[str, Any], real: torch.Tensor, *, reads_padding: bool
) -> None:
    """Compare all outputs that both give: where there are tokens, and of whole rows where padding is not read."""
    compared = ("logits", "hidden_states", "last_hidden_state")
    for name in (name for name in theirs if name in mine and name.endswith(compared)):
        both = ([out] if isinstance(out, torch.Tensor) else list(out) for out in (theirs[name], mine[name]))
        for tensors in zip(*both, strict=True):
            is_of_tokens = tensors[0].shape[:2] == real.shape and (tensors[0].dim() == 3 or name in _SPANS)
            kept = tuple(tensors)
            if is_of_tokens:
                kept = tuple(tensor[real] for tensor in tensors)
            elif reads_padding:
                kept = tuple(tensor.reshape(len(real), -1)[real[:, 0]] for tensor in tensors)
            _note(proof, name, *kept)


def _note(proof: Proof, name: str, theirs: torch.Tensor, mine: torch.Tensor) -> None:
    if theirs.shape != mine.shape:
        raise ValueError(f"{name} (of shape {list(mine.shape)}) must have the native shape {list(theirs.shape)}.")
    difference = float((theirs - mine).abs().max())
    largest = float(theirs.abs().max())
    # Not `max`, which drops a NaN that comes second.
    share = difference / largest if largest else difference
    for kept, value in ((proof.differences, difference), (proof.shares, share)):
        kept[name] = value if not value <= kept.get(name, -1.0) else kept[name]


def _compare_greedy(proof: Proof, native: PreTrainedModel, ours: PreTrainedModel, rows: list[list[int]]) -> None:
    """Let ours write, token by token, and see in one pass that the native model would have written each of them too.

    A model reads all its weights for each token that it writes. So only ours writes, and a large one the 32 tokens of
    all prompts together, not 32 after each: writing would take longer than all the rest.
    """
    rows = rows[:_ROWS]
    length = min(_PROMPT_TOKENS, *map(len, rows))
    wanted = GREEDY_TOKENS if ours.num_parameters() < _LARGE else GREEDY_TOKENS // len(rows)
    number = min(wanted, most_positions(ours) - length)
    if number < 1:
        proof.notes.append("the positions are too few to write anything after a prompt")
        return
    prompts = torch.tensor([row[:length] for row in rows], device=ours.device)
    inputs = {"input_ids": prompts, "attention_mask": torch.ones_like(prompts)}
    with _plain_generation(ours, number):
        texts = cast(Any, ours).generate(**inputs)  # [B, prompt + number]; of an encoder-decoder, [B, 1 + number]
    read = {**inputs, "decoder_input_ids": texts} if native.config.is_encoder_decoder else {"input_ids": texts}
    likeliest = native(**read, use_cache=False).logits[:, -number - 1 : -1].argmax(-1)
    proof.prompts, proof.greedy_tokens = len(prompts), number
    proof.greedy_equal = int((likeliest == texts[:, -number:]).sum())


@contextlib.contextmanager
def _plain_generation(model: Any, number: int) -> Iterator[None]:
    """Let a model write exactly so many likeliest tokens, whatever its own settings are."""
    own = model.generation_config
    model.generation_config = GenerationConfig(
        max_new_tokens=number,
        do_sample=False,
        pad_token_id=model.config.pad_token_id or 0,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
    )
    model.decoding = "plain"  # the fast loop lays all weights out a second time, for texts longer than this
    try:
        yield
    finally:
        model.generation_config = own
        del model.decoding


def weights_and_buffers(model: PreTrainedModel) -> list[torch.Tensor]:
    """List all that a model computes with but whole numbers: Marian's bias is a buffer."""
    return [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]


@contextlib.contextmanager
def in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Let a model's weights and buffers be float32 for a while; the way there and back changes no bit."""
    dtypes = {tensor: tensor.dtype for tensor in weights_and_buffers(model)}
    wider = {tensor: tensor.data for tensor in dtypes if tensor.dtype == torch.float64}  # which float32 would round
    try:
        for tensor in dtypes:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, dtype in dtypes.items():
            tensor.data = wider[tensor] if tensor in wider else tensor.data.to(dtype)
