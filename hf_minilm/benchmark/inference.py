"""The contests without training: texts into vectors, and tokens after a prompt."""

import contextlib
import json
import time
from statistics import median
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..data.tokenizer import load_tokenizer
from . import ours, peers
from .machine import memory_now, peak_memory, synchronise
from .work import EncodingWork, GenerationWork
from .working_folder import WorkingFolder

_WARMUP_BATCHES = 2
_REPEATS = 3


def encode_texts(work: EncodingWork, folder: WorkingFolder, device: torch.device) -> dict[str, Any]:
    """Measure how many texts and tokens a second become vectors; tokenising, the same for all, is left out."""
    torch.manual_seed(0)
    model = (ours if work.maker == "ours" else peers).build_encoder(work).eval().to(device)
    texts = json.loads(folder.texts(work.texts).read_text(encoding="utf-8"))
    batches = padded_batches(texts, load_tokenizer(folder.tokenizer("masked")), work)
    before = memory_now(device)
    vectors_of(model, batches[:_WARMUP_BATCHES], device, precision=work.precision)
    synchronise(device)
    begin = time.perf_counter()
    vectors = vectors_of(model, batches, device, precision=work.precision)
    seconds = time.perf_counter() - begin
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    positions = sum(batch["input_ids"].numel() for batch in batches)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "precision": work.precision,
        "texts": len(vectors),
        "tokens": tokens,
        "texts_per_second": len(vectors) / seconds,
        "tokens_per_second": tokens / seconds,
        "padding_share": 1 - tokens / positions,
        "peak_memory": peak_memory(device, before=before),
        "memory_before": before,
    }


def padded_batches(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, work: EncodingWork
) -> list[dict[str, torch.Tensor]]:
    """Tokenise texts in the given order, each batch padded to its longest, truncated at the longest allowed."""
    return [
        dict(
            tokenizer(
                texts[start : start + work.batch_rows],
                padding=True,
                truncation=True,
                max_length=work.longest,
                return_tensors="pt",
            )
        )
        for start in range(0, len(texts), work.batch_rows)
    ]


@torch.inference_mode()
def vectors_of(
    model: nn.Module, batches: list[dict[str, torch.Tensor]], device: torch.device, *, precision: str
) -> torch.Tensor:
    """Turn texts into the means of their tokens' vectors, float32 on the CPU, [texts, E]."""
    vectors = []
    is_bf16 = precision == "bf16"
    with torch.autocast(device.type, dtype=torch.bfloat16) if is_bf16 else contextlib.nullcontext():
        for batch in batches:
            inputs = {name: values.to(device) for name, values in batch.items()}
            hidden_states = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"][:, :, None].to(hidden_states.dtype)
            vectors.append(((hidden_states * mask).sum(dim=1) / mask.sum(dim=1)).float())
    return torch.cat(vectors).cpu()


def generate_tokens(work: GenerationWork, device: torch.device) -> dict[str, Any]:
    """Measure the time to the first token, and for each of those that follow; medians of several runs.

    The prompts are random: what is written does not change how long it takes, as no end of text is looked for.
    """
    torch.manual_seed(0)
    model: Any = (ours if work.maker == "ours" else peers).build_writer(work).eval().to(device)
    if work.precision == "bf16":
        model = model.to(torch.bfloat16)
    prompts = torch.randint(3, work.vocab_size, (work.batch_rows, work.prompt_tokens), device=device)
    before = memory_now(device)
    _seconds(model, prompts, 2)
    first = median(_seconds(model, prompts, 1) for _ in range(_REPEATS))
    whole = median(_seconds(model, prompts, work.new_tokens) for _ in range(_REPEATS))
    return {
        "parameters": model.num_parameters(),
        "precision": work.precision,
        "first_token_seconds": first,
        "token_seconds": (whole - first) / (work.new_tokens - 1),
        "tokens_per_second": work.batch_rows * work.new_tokens / whole,
        "peak_memory": peak_memory(device, before=before),
        "memory_before": before,
    }


def _seconds(model: Any, prompts: torch.Tensor, new_tokens: int) -> float:
    """Time one greedy continuation of prompts [B, T]; on a CPU our `generate` does as `decoding.py` says.

    Raises:
        RuntimeError: If it did not write as many tokens as it was asked for.
    """
    synchronise(prompts.device)
    begin = time.perf_counter()
    written = model.generate(prompts, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False)
    synchronise(prompts.device)
    seconds = time.perf_counter() - begin
    if written.shape != (prompts.shape[0], prompts.shape[1] + new_tokens):
        raise RuntimeError(f"written tokens ({tuple(written.shape)}) must be {new_tokens} after each prompt.")
    return seconds
