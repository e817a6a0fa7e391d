"""`hf-minilm check`: measure what must not change what a model computes, and print one table."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..inspection.invariances import Finding
    from ..model.configuration_minilm import MiniLMConfig

HELP = "Measure what must not change what a model computes: kernels, padding, packing, caches, compilation."
_SIZES = {"vocab_size": 211, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 12}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        help="folder or Hub name of a model; without one, some twenty small ones of all presets and position schemes",
    )
    parser.add_argument(
        "--quick", action="store_true", help="leave out what compiles code first: two tests a model, half a minute each"
    )


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; the exit code is 0, or 1 if a difference is outside its tolerance."""
    from ..inspection.invariances import SLOW, check_invariances

    held = True
    for name, model in _models(arguments.model):
        findings = check_invariances(model, leave_out=SLOW if arguments.quick else ())
        print("\n".join(table(name, findings)), flush=True)
        held = held and all(finding.holds for finding in findings)
    return 0 if held else 1


def table(name: str, findings: "list[Finding]") -> Iterator[str]:
    """Lay findings out as lines of text."""
    yield f"{name:<32}{'forward':>10}{'gradient':>10}   tolerance (forward, gradient)"
    for finding in findings:
        tolerance = f"{finding.tolerance.forward:.0e}, {finding.tolerance.gradient:.0e}"
        if finding.difference is None:
            yield f"  {finding.name:<30}{'-':>10}{'-':>10}   {finding.skipped}"
            continue
        gradient = "-" if finding.difference.gradient is None else f"{finding.difference.gradient:.0e}"
        verdict = "" if finding.holds else "   OUTSIDE"
        yield f"  {finding.name:<30}{finding.difference.forward:>10.0e}{gradient:>10}   {tolerance}{verdict}"
    yield ""


def _models(name: str | None) -> "Iterator[tuple[str, PreTrainedModel]]":
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for title, model in _built() if name is None else _opened(name):
        torch.nn.Module.to(model, device)
        yield title, model


def _opened(name: str) -> "Iterator[tuple[str, PreTrainedModel]]":
    """Open a saved model; of an encoder-decoder, both stacks."""
    import torch

    from ..conversion.opening import open_config, open_weights
    from ..conversion.tensors import refuse_tensors
    from ..model.modeling_minilm import MiniLMModel
    from ..model.modeling_minilm_seq2seq import MiniLMSeq2SeqModel

    kind = open_config(name).model_type
    classes = {each.config_class.model_type: each for each in (MiniLMModel, MiniLMSeq2SeqModel)}
    if kind not in classes:
        raise ValueError(f"model ({name}, a {kind}) must be one of this package; give another.")
    model, missing, _ = open_weights(name, classes[kind], dtype=torch.float32)
    refuse_tensors(missing=missing)
    yield from _stacks(name, model) if isinstance(model, MiniLMSeq2SeqModel) else [(name, model)]


def _built() -> "Iterator[tuple[str, PreTrainedModel]]":
    """Build the presets and a model of each position scheme."""
    import torch

    from ..model.configuration_minilm_seq2seq import SEQ2SEQ_PRESETS, MiniLMSeq2SeqConfig
    from ..model.modeling_minilm import MiniLMModel
    from ..model.modeling_minilm_seq2seq import MiniLMSeq2SeqModel

    for title, config in _configurations():
        torch.manual_seed(0)
        yield title, MiniLMModel(config)
    # Weights so large that attention is far from even, as below.
    stack = {**SEQ2SEQ_PRESETS["vaswani2017"], **_SIZES, "initializer_range": 0.2}
    yield from _stacks("preset vaswani2017", MiniLMSeq2SeqModel(MiniLMSeq2SeqConfig(encoder=stack, decoder=stack)))


def _stacks(name: str, model: Any) -> "Iterator[tuple[str, PreTrainedModel]]":
    yield f"{name}, encoder", model.encoder
    yield f"{name}, decoder", model.decoder


def _configurations() -> "Iterator[tuple[str, MiniLMConfig]]":
    from ..model.configuration_minilm import PRESETS, MiniLMConfig
    from ..model.positions import POSITION_SCHEMES

    # Weights so large that attention is far from even, or differences would hide in an average.
    common: dict[str, Any] = {**_SIZES, "initializer_range": 0.2}
    for preset, fields in PRESETS.items():
        yield f"preset {preset}", MiniLMConfig(**{**fields, **common})
    sliding: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}
    schemes: list[tuple[str, dict[str, Any]]] = [(name, {"position_embedding": name}) for name in POSITION_SCHEMES]
    for title, chosen in [*schemes, ("sliding windows", sliding)]:
        for is_causal in (False, True):
            direction = "causal" if is_causal else "bidirectional"
            yield f"{title}, {direction}", MiniLMConfig(**{**common, **chosen, "is_causal": is_causal})
