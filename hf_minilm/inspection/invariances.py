"""What must not change what a model computes, and by how much it changes it all the same.

Rounding apart, a model gives the same outputs and gradients whichever kernel computes its attention, however its
sequences are padded, packed or cached, compiled or not. Each invariance below measures its own largest difference,
relative to the largest number compared, between two ways that must agree.

Shapes: B batch, T positions, E hidden size.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from ..model.variable_length import VARIABLE_LENGTH

_ROWS, _LENGTH, _OTHER_LENGTH = 3, 19, 11
"""Odd and unequal, so that exchanged axes show."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest difference that counts as rounding, relative to the largest number compared, and why that much."""

    forward: float
    gradient: float
    reason: str


EXACT = Tolerance(0.0, 0.0, "the same operations on the same numbers")
ROUNDING = Tolerance(2e-5, 2e-4, "float32 sums in another order, some layers deep")
HALF = Tolerance(5e-2, 1e-1, "bfloat16 keeps 8 bits of a number, some layers deep")


@dataclass(frozen=True, slots=True)
class Difference:
    """Largest relative difference of outputs and of gradients; None where there is no gradient to compare."""

    forward: float
    gradient: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What one invariance came to.

    Attributes:
        name: Two ways that must agree.
        tolerance: What counts as rounding.
        difference: What was measured, or None.
        skipped: Why nothing was measured.
    """

    name: str
    tolerance: Tolerance
    difference: Difference | None = None
    skipped: str = ""

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance; true where nothing was measured."""
        if self.difference is None:
            return True
        gradient = self.difference.gradient
        # Written so that NaN does not hold.
        return self.difference.forward <= self.tolerance.forward and (
            gradient is None or gradient <= self.tolerance.gradient
        )


class NotHereError(Exception):
    """The invariance has no meaning for this model, or cannot be measured on this machine."""


@dataclass(frozen=True, slots=True)
class _Run:
    outputs: torch.Tensor
    gradients: tuple[torch.Tensor, ...]


class Subject:
    """A model, and tokens for it to read.

    Args:
        model: A backbone (`MiniLMModel`) in float32; it is put into evaluation mode, and its attention implementation
            is changed while it is measured. One with cross-attention is given the same other text in every run.
        seed: Draws the tokens.
    """

    def __init__(self, model: PreTrainedModel, *, seed: int = 0) -> None:
        self.model = model.eval()
        self.is_causal = bool(model.config.is_causal)
        self.length = min(_LENGTH, model.config.max_position_embeddings)
        generator = torch.Generator().manual_seed(seed)
        shape = _ROWS, self.length
        self.tokens = torch.randint(1, model.config.vocab_size, shape, generator=generator).to(model.device)
        self.other_text: torch.Tensor | None = None
        if model.config.cross_attention_hidden_size is not None:
            text = torch.randn(1, _OTHER_LENGTH, model.config.cross_attention_hidden_size, generator=generator)
            self.other_text = text.to(model.device, model.dtype)
        self._hook = self.model.register_forward_pre_hook(self._with_other_text, with_kwargs=True)

    def _with_other_text(self, model: Any, given: tuple[Any, ...], options: dict[str, Any]) -> Any:  # noqa: ARG002
        if self.other_text is None:
            return None
        tokens: Any = given[0] if given else options.get("input_ids", options.get("inputs_embeds"))
        return given, {**options, "encoder_hidden_states": self.other_text.expand(len(tokens), -1, -1)}

    def let_go(self) -> None:
        """Leave the model as it is without the measuring."""
        self._hook.remove()

    def run(self, *, kept: torch.Tensor | None = None, attention: str = "eager", **inputs: Any) -> _Run:
        """Run the model; its outputs [n, E] at the kept positions [B, T], and the gradients of a sum over them."""
        self.model.set_attn_implementation(attention)
        return self.run_as(self.model, kept=kept, **inputs)

    def run_as(self, model: Any, *, kept: torch.Tensor | None = None, **inputs: Any) -> _Run:
        """Do the same with another form of the model, such as a compiled one; the parameters are the model's."""
        outputs = model(**{"input_ids": self.tokens, **inputs}).last_hidden_state
        outputs = outputs.flatten(0, 1) if kept is None else outputs[kept]
        return _Run(outputs.detach(), self.gradients(outputs))

    def gradients(self, outputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Take the gradients of a sum in which every number of the outputs has a weight of its own."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        weights = torch.linspace(-1, 1, outputs.numel(), device=outputs.device).view_as(outputs)
        found = torch.autograd.grad((outputs.float() * weights).sum(), parameters, allow_unused=True)
        return tuple(gradient for gradient in found if gradient is not None)

    def packed(self) -> torch.Tensor:
        """Positions [B, T] of rows that hold two sequences, or three, each row in its own way."""
        cuts = ((self.length // 3,), (self.length // 2,), (1, self.length - 4))
        rows = [
            [place - max([0, *(cut for cut in row if cut <= place)]) for place in range(self.length)] for row in cuts
        ]
        return torch.tensor(rows, device=self.tokens.device)

    def sequences(self, positions: torch.Tensor) -> Iterator[torch.Tensor]:
        """Give the sequences of packed rows, each as a batch of one."""
        for row, places in zip(self.tokens, positions, strict=True):
            starts = (places == 0).nonzero().flatten().tolist()
            for start, stop in zip(starts, [*starts[1:], len(row)], strict=True):
                yield row[None, start:stop]


def compare(expected: _Run, found: _Run) -> Difference:
    """Measure the largest difference of outputs, and of gradients, relative to the largest number expected.

    A gradient is measured against its parameter's largest one, or against a hundredth of all parameters' largest: some
    are 0 but for rounding, as that of a bias on all keys, which no softmax sees.
    """
    least = 0.01 * max(float(gradient.abs().max()) for gradient in expected.gradients)
    pairs = zip(expected.gradients, found.gradients, strict=True)
    gradient = max(_relative(one, other, least=least) for one, other in pairs)
    return Difference(_relative(expected.outputs, found.outputs), gradient)


def _relative(expected: torch.Tensor, found: torch.Tensor, *, least: float = 1e-3) -> float:
    expected, found = expected.detach().float(), found.detach().float()
    difference = (expected - found).abs().max() / expected.abs().max().clamp(min=least)
    return float(difference.nan_to_num(nan=float("inf")))


def kernel(name: str) -> Callable[[Subject], Difference]:
    """Measure a kernel against the written-out formula, on packed rows."""

    def measure(subject: Subject) -> Difference:
        positions = subject.packed()
        return compare(
            subject.run(position_ids=positions, use_cache=False),
            subject.run(position_ids=positions, use_cache=False, attention=name),
        )

    return measure


def flex(subject: Subject) -> Difference:
    """Measure flex attention, whose backward pass exists on GPUs only."""
    if subject.tokens.device.type != "cpu":
        return kernel("flex_attention")(subject)
    positions = subject.packed()
    expected = subject.run(position_ids=positions, use_cache=False).outputs
    subject.model.set_attn_implementation("flex_attention")
    with torch.no_grad():
        found = subject.model(subject.tokens, position_ids=positions, use_cache=False).last_hidden_state
    return Difference(_relative(expected, found.flatten(0, 1)))


def variable_length(subject: Subject) -> Difference:
    """Measure the package's own kernel for packed rows, on a GPU in bfloat16, which is what it computes in there."""
    if subject.model.positions.is_added_to_scores:
        raise NotHereError("the kernel knows no position bias")
    if subject.tokens.device.type == "cpu":
        return kernel(VARIABLE_LENGTH)(subject)
    return _in_half(subject, VARIABLE_LENGTH)


def flash(subject: Subject) -> Difference:
    """Measure flash attention where its package is installed, on whole rows, in bfloat16."""
    if not is_flash_attn_2_available():
        raise NotHereError("needs a CUDA device and flash-attn")
    if subject.model.positions.is_added_to_scores:
        raise NotHereError("the kernel knows no position bias")
    return _in_half(subject, "flash_attention_2", packed=False)


def _in_half(subject: Subject, attention: str, *, packed: bool = True) -> Difference:
    half = Subject(copy.deepcopy(subject.model).to(torch.bfloat16))
    inputs: dict[str, Any] = {"use_cache": False, **({"position_ids": half.packed()} if packed else {})}
    return compare(half.run(attention="sdpa", **inputs), half.run(attention=attention, **inputs))


def packed_and_separate(subject: Subject) -> Difference:
    """Compare packed rows with each sequence by itself."""
    positions = subject.packed()
    expected = [
        subject.model(sequence, use_cache=False).last_hidden_state[0]
        for sequence in _eager(subject).sequences(positions)
    ]
    alone = torch.cat(expected)
    return compare(
        _Run(alone.detach(), subject.gradients(alone)),
        subject.run(position_ids=positions, use_cache=False, attention="sdpa"),
    )


def _eager(subject: Subject) -> Subject:
    subject.model.set_attn_implementation("eager")
    return subject


def padding(side: str) -> Callable[[Subject], Difference]:
    """Compare rows padded on a side with rows that are not."""

    def measure(subject: Subject) -> Difference:
        shorter = subject.length - 4
        tokens = subject.tokens[:, :shorter]
        filler = torch.zeros_like(subject.tokens[:, shorter:])
        kept = torch.ones_like(subject.tokens, dtype=torch.bool)
        kept[:, shorter:] = False
        if side == "left":
            kept = kept.flip(1)
        parts = (tokens, filler) if side == "right" else (filler, tokens)
        padded = {"input_ids": torch.cat(parts, dim=1), "attention_mask": kept.long()}
        if side == "left" and _counts_from_the_start(subject):
            # As generation counts: real tokens alone. Given to every scheme, positions would separate the padding
            # by themselves, and a mask that does nothing would not be noticed.
            padded["position_ids"] = (kept.long().cumsum(-1) - 1).clamp(min=0)
        return compare(
            subject.run(input_ids=tokens, use_cache=False),
            subject.run(**padded, kept=kept, use_cache=False, attention="sdpa"),
        )

    return measure


def _counts_from_the_start(subject: Subject) -> bool:
    """Say whether the scheme tells absolute positions, and not only how far apart tokens are."""
    return subject.model.positions.added_to_embeddings(subject.packed()) is not None


def cached_and_not(subject: Subject) -> Difference:
    """Compare a text read in pieces, with a cache, with the text read at once."""
    if not subject.is_causal:
        raise NotHereError("attention is bidirectional")
    _eager(subject)
    with torch.no_grad():
        expected = subject.model(subject.tokens, use_cache=False).last_hidden_state
        cache = DynamicCache(config=subject.model.config)
        pieces = [
            subject.model(piece, past_key_values=cache).last_hidden_state
            for piece in subject.tokens.split([subject.length - 6, 1, 3, 1, 1], dim=1)
        ]
    return Difference(_relative(expected, torch.cat(pieces, dim=1)))


def compiled_and_not(subject: Subject) -> Difference:
    """Compare the model compiled as one graph with the model as it is."""
    expected = subject.run(use_cache=False, attention="sdpa")
    torch.compiler.reset()
    found = subject.run_as(torch.compile(subject.model, fullgraph=True), use_cache=False)
    torch.compiler.reset()
    return compare(expected, found)


def half_and_whole(subject: Subject) -> Difference:
    """Compare bfloat16 autocast with float32."""
    expected = subject.run(use_cache=False, attention="sdpa")
    with torch.autocast(subject.tokens.device.type, dtype=torch.bfloat16):
        found = subject.run(use_cache=False, attention="sdpa")
    return compare(expected, found)


def later_tokens(subject: Subject) -> Difference:
    """Change the tokens from one place on: nothing before it may move."""
    if not subject.is_causal:
        raise NotHereError("attention is bidirectional")
    place = subject.length // 2
    changed = subject.tokens.clone()
    changed[:, place:] = changed[:, place:] % (subject.model.config.vocab_size - 1) + 1
    kept = torch.zeros_like(subject.tokens, dtype=torch.bool)
    kept[:, :place] = True
    runs = (
        subject.run(input_ids=ids, kept=kept, use_cache=False, attention="sdpa") for ids in (subject.tokens, changed)
    )
    expected, found = (run.outputs for run in runs)
    return Difference(_relative(expected, found))


def other_documents(subject: Subject) -> Difference:
    """Change one document of each packed row: no other's outputs may move, and none may have a gradient from it."""
    positions = subject.packed()
    own = (positions == 0).cumsum(-1) == 1  # the first document of each row
    subject.model.set_attn_implementation("sdpa")
    embeddings = subject.model.get_input_embeddings()(subject.tokens).detach().requires_grad_()
    changed = torch.where(own[..., None], embeddings.detach() + 1.0, embeddings)
    before, after = (
        subject.model(inputs_embeds=vectors, position_ids=positions, use_cache=False).last_hidden_state
        for vectors in (embeddings, changed)
    )
    (gradient,) = torch.autograd.grad(before[~own].square().sum(), embeddings)
    return Difference(_relative(before[~own], after[~own]), float(gradient[own].abs().max()))


def nothing_to_see(subject: Subject) -> Difference:
    """Forbid one query everything: its attention must give zeros, and nothing may become NaN.

    The gradient's figure is 0 if all gradients are finite, and infinite if not.
    """
    mask = torch.ones(_ROWS, 1, subject.length, subject.length, dtype=torch.bool, device=subject.tokens.device)
    mask[0, :, 2] = False
    attended: list[torch.Tensor] = []

    def note(module: Any, arguments: tuple[torch.Tensor, ...]) -> None:  # noqa: ARG001 (the signature of a hook)
        attended.append(arguments[0].detach())

    largest = 0.0
    gradients: list[torch.Tensor] = []
    for attention in ("eager", "sdpa"):
        handles = [layer.attention.output.register_forward_pre_hook(note) for layer in subject.model.layers]
        try:
            run = subject.run(attention_mask=mask, use_cache=False, attention=attention)
        finally:
            for handle in handles:
                handle.remove()
        gradients += [run.outputs, *run.gradients]
        largest = max(largest, *(float(vectors[0, 2].abs().max().nan_to_num(nan=float("inf"))) for vectors in attended))
    finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
    return Difference(largest, 0.0 if finite else float("inf"))


def saved_and_loaded(subject: Subject) -> Difference:
    """Compare the model with itself saved and opened again."""
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        again = type(subject.model).from_pretrained(folder).to(subject.tokens.device).eval()
        expected = subject.run(use_cache=False)
        return compare(expected, Subject(again).run(input_ids=subject.tokens, use_cache=False))


INVARIANCES: tuple[tuple[str, Tolerance, Callable[[Subject], Difference]], ...] = (
    ("sdpa = the formula", ROUNDING, kernel("sdpa")),
    ("flex = the formula", ROUNDING, flex),
    (f"{VARIABLE_LENGTH} = sdpa", HALF, variable_length),
    ("flash = sdpa", HALF, flash),
    ("packed = separate", ROUNDING, packed_and_separate),
    ("right padding = none", ROUNDING, padding("right")),
    ("left padding = none", ROUNDING, padding("left")),
    ("cached = at once", ROUNDING, cached_and_not),
    ("compiled = not", ROUNDING, compiled_and_not),
    ("bfloat16 near float32", HALF, half_and_whole),
    ("a later token moves nothing", EXACT, later_tokens),
    ("another document moves nothing", EXACT, other_documents),
    ("nothing to see gives zeros", EXACT, nothing_to_see),
    ("saved = loaded", EXACT, saved_and_loaded),
)
"""Every invariance: its name, what counts as rounding, and how it is measured."""

SLOW = ("flex = the formula", "compiled = not")
"""Those that compile code first, half a minute each."""


def check_invariances(model: PreTrainedModel, *, leave_out: tuple[str, ...] = ()) -> list[Finding]:
    """Measure every invariance of a backbone, which is left as it was.

    Args:
        model: A `MiniLMModel` in float32, on any device.
        leave_out: Names of `INVARIANCES` not to measure.
    """
    was_training, implementation = model.training, model.config._attn_implementation
    subject = Subject(model)
    try:
        return [_find(subject, *invariance, leave_out=leave_out) for invariance in INVARIANCES]
    finally:
        subject.let_go()
        model.train(was_training).set_attn_implementation(implementation)


def _find(
    subject: Subject,
    name: str,
    tolerance: Tolerance,
    measure: Callable[[Subject], Difference],
    *,
    leave_out: tuple[str, ...],
) -> Finding:
    if name in leave_out:
        return Finding(name, tolerance, skipped="left out")
    try:
        return Finding(name, tolerance, measure(subject))
    except NotHereError as reason:
        return Finding(name, tolerance, skipped=str(reason))
