"""The model of a checkpoint, opened exactly as it was saved or refused with what to do."""

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from ..one_line import one_line
from .checkpoint import check_finite


def load_model(
    checkpoint: Path, model_class: type[PreTrainedModel], config: PreTrainedConfig, *, attention: str
) -> PreTrainedModel:
    """Open the model of a checkpoint, exactly: each of its weights, in single precision, and nothing else.

    Args:
        checkpoint: Its folder.
        model_class: What the recipe trains.
        config: What the recipe builds. The checkpoint's own is not read: with another one, other weights would be
            opened, or weights would begin anew without a word.
        attention: The attention kernel, by its name.

    Raises:
        FileNotFoundError: If there are no weights.
        ValueError: If a weight is missing, unknown, of another shape or type, or not finite, or an adapter lies there.
    """
    path, adapter = checkpoint / SAFE_WEIGHTS_NAME, checkpoint / "adapter_config.json"
    if adapter.exists():
        raise ValueError(f"adapter ({adapter}) must not lie beside weights, to which PEFT would join it; remove it.")
    try:
        with safe_open(path, framework="pt") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        opened: tuple[PreTrainedModel, dict[str, Any]] = cast(Any, model_class).from_pretrained(
            checkpoint,
            config=config,
            attn_implementation=attention,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # safetensors, torch and transformers each have classes of their own
        raise ValueError(
            f"weights ({path}) must be those of the recipe's model; {_advice(checkpoint, config)} ({one_line(error)})."
        ) from error
    model, found = opened
    wrong = sorted(name for name, kind in kinds.items() if kind != "F32")
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        wrong += sorted(map(str, found.get(what) or ()))
    if wrong:
        raise ValueError(
            f"weights ({path}) must be those of the recipe's model in single precision, and {len(wrong)} are not, "
            f"{wrong[0][:200]} first; {_advice(checkpoint, config)}."
        )
    check_finite(model)
    return model


def _advice(checkpoint: Path, config: PreTrainedConfig) -> str:
    """Say what to do about weights of another model: it may be what the same recipe built in an earlier version."""
    try:
        theirs = _sizes(json.loads((checkpoint / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        theirs = {}
    ours = _sizes(config.to_dict())
    others = {name: size for name, size in theirs.items() if name in ours and size != ours[name]}
    if not others:
        return "choose an older checkpoint"
    said = ", ".join(f"its {name} is {size} (by the recipe {ours[name]})" for name, size in others.items())
    return (
        f"{said}: if an earlier version began this run, write that under model.overrides of the recipe and of the run "
        "folder's recipe.yaml, or choose an older checkpoint"
    )


def _sizes(fields: Any) -> dict[str, int]:
    """Read the whole numbers of a configuration; those of an encoder or a decoder under `encoder.` and `decoder.`."""
    if not isinstance(fields, dict):
        return {}
    own = {name: value for name, value in fields.items() if type(value) is int}
    inner = {part: _sizes(fields[part]) for part in ("encoder", "decoder") if part in fields}
    return own | {f"{part}.{name}": size for part, sizes in inner.items() for name, size in sizes.items()}
