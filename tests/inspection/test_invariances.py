"""The invariances hold for the package's models, and each is noticed when it is broken."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_minilm import MiniLMConfig, MiniLMModel
from hf_minilm.inspection import invariances
from hf_minilm.inspection.invariances import INVARIANCES, SLOW, Finding, check_invariances
from hf_minilm.model import modeling_minilm
from hf_minilm.model.attention import token_mask
from hf_minilm.model.positions import POSITION_SCHEMES

SIZES = {
    "vocab_size": 211,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 31,
}


def build(**fields: object) -> MiniLMModel:
    torch.manual_seed(0)
    return MiniLMModel(MiniLMConfig(**{**SIZES, "initializer_range": 0.2, **fields}))


def broken(model: MiniLMModel) -> set[str]:
    return {finding.name for finding in check_invariances(model, leave_out=SLOW) if not finding.holds}


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("scheme", POSITION_SCHEMES)
def test_all_hold_for_every_scheme(scheme: str, is_causal: bool) -> None:
    findings = check_invariances(build(position_embedding=scheme, is_causal=is_causal), leave_out=SLOW)
    assert [finding.name for finding in findings] == [name for name, _, _ in INVARIANCES]
    assert [finding for finding in findings if not finding.holds] == []
    measured = {finding.name for finding in findings if finding.difference is not None}
    assert measured >= {"sdpa = the formula", "packed = separate", "left padding = none", "saved = loaded"}
    assert ("cached = at once" in measured) == is_causal
    assert ("minilm_varlen = sdpa" in measured) == (scheme not in ("alibi", "relative_bias"))


@pytest.mark.slow
@pytest.mark.parametrize("is_causal", [False, True])
def test_those_that_compile_hold_too(is_causal: bool) -> None:
    findings = check_invariances(build(is_causal=is_causal))
    assert [finding for finding in findings if not finding.holds] == []
    assert {finding.name for finding in findings if finding.difference is not None} >= set(SLOW)


def blur_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def blurred(*arguments: object, **keywords: object) -> tuple[torch.Tensor, None]:
        outputs, weights = exact(*arguments, **keywords)
        return outputs * 1.001, weights

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "sdpa", blurred)


def forget_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_minilm, "packing", lambda *_, **__: (None, {}))


def forget_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpadded(config: object, embeddings: object, attention_mask: object, **keywords: object) -> object:
        is_padding = isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2
        return token_mask(config, embeddings, None if is_padding else attention_mask, **keywords)

    monkeypatch.setattr(modeling_minilm, "token_mask", unpadded)


def look_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(config: Any, embeddings: torch.Tensor, attention_mask: object, **keywords: object) -> object:
        if keywords["past_key_values"] is not None or config._attn_implementation == "minilm_varlen":
            return token_mask(config, embeddings, attention_mask, **keywords)
        batch_size, length = embeddings.shape[:2]
        return torch.ones(batch_size, 1, length, length, dtype=torch.bool)

    monkeypatch.setattr(modeling_minilm, "token_mask", everything)


def forget_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_minilm.DynamicCache, "get_seq_length", lambda *_, **__: 0)


BREAKAGES: list[tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = [
    (blur_sdpa, {"sdpa = the formula"}),
    (forget_sequences, {"packed = separate", "another document moves nothing"}),
    (forget_padding, {"right padding = none", "left padding = none"}),
    (look_ahead, {"a later token moves nothing", "packed = separate"}),
    (forget_what_was_seen, {"cached = at once"}),
]


@pytest.mark.parametrize(("break_it", "noticed"), BREAKAGES, ids=[function.__name__ for function, _ in BREAKAGES])
def test_what_is_broken_is_noticed(
    monkeypatch: pytest.MonkeyPatch, break_it: Callable[[pytest.MonkeyPatch], None], noticed: set[str]
) -> None:
    # A causal model never looks at padding on the right.
    model = build(is_causal=break_it is not forget_padding)
    break_it(monkeypatch)
    assert broken(model) >= noticed


def test_a_weight_that_saving_loses_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, save = build(), MiniLMModel.save_pretrained

    def lossy(self: MiniLMModel, folder: str) -> None:
        kept = self.norm.weight.detach().clone()
        self.norm.weight.data += 1e-3
        save(self, folder)
        self.norm.weight.data = kept

    monkeypatch.setattr(MiniLMModel, "save_pretrained", lossy)
    assert broken(model) == {"saved = loaded"}


@pytest.mark.parametrize("scheme", ["alibi", "relative_bias"])
def test_a_kernel_that_would_drop_the_bias_is_not_measured(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(invariances, "is_flash_attn_2_available", lambda: True)
    others = tuple(name for name, *_ in INVARIANCES if "flash" not in name)
    findings = check_invariances(build(position_embedding=scheme), leave_out=others)
    assert {finding.skipped for finding in findings} == {"left out", "the kernel knows no position bias"}


def test_nan_does_not_hold() -> None:
    name, tolerance, _ = INVARIANCES[0]
    model = build()
    model.norm.weight.data[0] = float("nan")
    assert name in broken(model)
    assert Finding(name, tolerance, skipped="not here").holds
