"""A configuration from elsewhere asks for anything; what it gets is an error, at once, before anything is allocated."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

from hf_minilm import MiniLMConfig, MiniLMForMaskedLM, MiniLMSeq2SeqConfig
from hf_minilm.cli.main import main
from hf_minilm.model.configuration_minilm import MOST_LABELS, MOST_LAYERS, MOST_PARAMETERS

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "head_dim")
OTHER_SIZES = ("num_key_value_heads", "max_position_embeddings", "type_vocab_size", "cross_attention_hidden_size")
NUMBERS = ("norm_eps", "initializer_range", "hidden_dropout", "attention_dropout", "classifier_dropout")
WRONG_TYPES: tuple[Any, ...] = ("many", "8", [], {"a": 1}, 1.5)


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in (*SIZES, *OTHER_SIZES):
        for value in (-1, -(10**12), 10**12, 10**40, 10**400, *WRONG_TYPES):
            yield f"{name}={str(value)[:14]}", {name: value}
    for name in SIZES[:3]:
        yield f"{name}=0", {name: 0}
        yield f"{name}=null", {name: None}
    for name in NUMBERS:
        for value in (float("nan"), float("inf"), -0.5, -float("inf"), "much", [0.1]):
            yield f"{name}={value}", {name: value}
    for name in ("hidden_dropout", "attention_dropout", "classifier_dropout"):
        yield f"{name}=1", {name: 1.0}
    for value in (-1, 50, 10**12, "zero", [0], 0.5):
        yield f"pad_token_id={value}", {"pad_token_id": value}
    for value in ("unknown", "", "__import__", "gelu\0", "../gelu", 3, None, ["gelu"]):
        yield f"hidden_act={value!r}", {"hidden_act": value}
    for name in ("norm", "norm_placement", "feed_forward", "classifier_pooling"):
        for value in ("unknown", "../x", 3, ["pre"]):
            yield f"{name}={value}", {name: value}
    for value in (10**9, 10**12, -1, "3", 1.5, [1]):
        yield f"num_labels={value}", {"num_labels": value}
    for value in ({"a": "x"}, [1], "x", 3):
        yield f"id2label={value}", {"id2label": value}
    for value in ("unknown", "os", "load", "nn.Module", "__class__"):
        yield f"dtype={value}", {"dtype": value}
    for value in ([], ["full_attention"], ["full_attention"] * 10**5, ["x", "y"], "full_attention", [1, 2], {"a": 1}):
        yield f"layer_types={str(value)[:20]}", {"layer_types": value}
    for theta in (0, -1, float("nan"), float("inf"), "x", None, [1]):
        yield f"rope_theta={theta}", {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    for value in ({"rope_type": "unknown"}, {"rope_type": "../x"}, {"rope_type": 3}, [], "x", 3):
        yield f"rope_parameters={value}", {"rope_parameters": value}
    for factor in (0, -2, float("nan"), float("inf"), "x", [1]):
        yield f"factor={factor}", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": factor}}
    for share in (0, -1, 2, float("nan"), float("inf"), "x", 10**400):
        yield f"partial_rotary_factor={str(share)[:9]}", {"partial_rotary_factor": share}
    for window in (0, -1, 5, "x"):
        yield f"sliding_window={window}", {"sliding_window": window}
    for name in ("attn_implementation", "_attn_implementation"):
        yield f"{name} of a repository", {name: "somebody/kernel"}
    yield "learned positions without end", {"position_embedding": "learned", "max_position_embeddings": 10**11}
    yield "sinusoids without end", {"position_embedding": "sinusoidal", "max_position_embeddings": 10**11}
    yield "buckets without end", {"position_embedding": "relative_bias", "relative_attention_num_buckets": 10**12}
    yield "unknown positions", {"position_embedding": "../rope"}
    yield "many layers of nothing", {"num_hidden_layers": 10**6, "hidden_size": 2, "num_attention_heads": 1}
    yield "negative layers of much", {"num_hidden_layers": -1, "hidden_size": 10**9}


CASES = dict(cases())
REFUSALS = (ValueError, OSError, StrictDataclassError)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[dict[str, Any] | bytes], Path]:
    """Write a model folder whose configuration is a saved one with other fields, or any bytes."""

    def write(fields: dict[str, Any] | bytes) -> Path:
        if isinstance(fields, bytes):
            (tmp_path / "config.json").write_bytes(fields)
        else:
            content = {"model_type": "hf_minilm", "transformers_version": "5.23.0", **SMALL, **fields}
            (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 200


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_field_is_refused_before_anything_is_allocated(
    case: str, folder: Callable, bounded: Callable
) -> None:
    path = folder(CASES[case])
    with bounded(seconds=1, megabytes=100), pytest.raises(REFUSALS) as refused:
        MiniLMForMaskedLM._from_config(AutoConfig.from_pretrained(path))
    assert len(str(refused.value)) < 2_000


@pytest.mark.parametrize("case", ["vocab_size=10000000000", "num_hidden_layers=-1", "hidden_act='unknown'"])
def test_a_stack_of_an_encoder_decoder_is_looked_at_likewise(case: str, bounded: Callable) -> None:
    fields = CASES.get(case, {"vocab_size": 10**12})
    for stacks in ({"encoder": {**SMALL, **fields}}, {"decoder": {**SMALL, **fields}}):
        with bounded(seconds=1, megabytes=100), pytest.raises(REFUSALS):
            MiniLMSeq2SeqConfig(**{"encoder": SMALL, "decoder": SMALL, **stacks})
    with pytest.raises(ValueError, match="num_labels"):
        MiniLMSeq2SeqConfig(encoder=SMALL, decoder=SMALL, num_labels=10**9)


FILES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{'a': 1}",
    "list": b"[1, 2]",
    "text": b'"hf_minilm"',
    "null": b"null",
    "number": b"9" * 10_000,
    "cut off": b'{"model_type": "hf_minilm", "vocab',
    "bad UTF-8": b'{"model_type": "hf_minilm\xff"}',
    "UTF-16": '{"model_type": "hf_minilm"}'.encode("utf-16"),
    "NUL": b"\0" * 1000,
    "a hundred thousand brackets": b"[" * 100_000,
    "a hundred thousand braces": b'{"a":' * 100_000,
    "1e400": b'{"model_type": "hf_minilm", "norm_eps": 1e400}',
    "NaN": b'{"model_type": "hf_minilm", "norm_eps": NaN}',
    "ten thousand digits": b'{"model_type": "hf_minilm", "vocab_size": ' + b"9" * 10_000 + b"}",
    "model type is a list": b'{"model_type": ["hf_minilm"]}',
    "unknown model type": b'{"model_type": "../hf_minilm"}',
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_configuration_is_one_line_at_the_command_line(
    case: str, folder: Callable, bounded: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    with bounded(seconds=1, megabytes=100):
        assert main(["check", str(folder(FILES[case]))]) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]) == 1


@pytest.mark.parametrize("case", ["hidden_size=many", "hidden_size=[]", "rope_theta=x", "id2label=[1]", "num_labels=3"])
def test_a_recipe_that_overrides_a_field_so_is_one_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    fields = ",".join(f"{name}: {json.dumps(value)}" for name, value in CASES[case].items())
    assert main(["pretrain", f"--set=model.overrides={{{fields}}}"]) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]) == 1


def test_sizes_that_a_person_may_want_are_accepted() -> None:
    ten_billion = MiniLMConfig(vocab_size=256_000, hidden_size=5120, num_hidden_layers=40, num_attention_heads=40)
    assert 10**10 < ten_billion.count_parameters() < 2 * 10**10
    assert MiniLMConfig(**{**SMALL, "num_hidden_layers": 1_000}).num_hidden_layers == 1_000
    assert MiniLMConfig(**SMALL, max_position_embeddings=10**9).max_position_embeddings == 10**9
    assert MiniLMConfig(**SMALL, num_labels=10_000).num_labels == 10_000
    assert MiniLMConfig(**SMALL, attn_implementation="somebody/kernel")._attn_implementation == "somebody/kernel"
    assert (MOST_PARAMETERS, MOST_LAYERS, MOST_LABELS) == (10**11, 10_000, 10**6)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"feed_forward": "plain", "num_key_value_heads": 1, "head_dim": 6, "type_vocab_size": 0},
        {"position_embedding": "learned", "intermediate_size": 31},
        {"position_embedding": "relative_bias"},
    ],
)
def test_the_count_is_that_of_the_models_matrices(fields: dict[str, Any]) -> None:
    config = MiniLMConfig(**{**SMALL, **fields})
    with torch.device("meta"):
        model = MiniLMForMaskedLM(config)
    matrices = sum(each.numel() for each in model.model.parameters() if each.dim() == 2)
    assert config.count_parameters() == matrices


def test_a_classifier_of_a_saved_model_opens_as_before(tmp_path: Path) -> None:
    MiniLMForMaskedLM(MiniLMConfig(**SMALL, num_labels=5)).save_pretrained(tmp_path)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).num_labels == 5
    assert AutoModelForMaskedLM.from_pretrained(tmp_path).config.pad_token_id == 0
