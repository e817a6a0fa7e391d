"""Sixty bad inputs and more for each class, each refused by name, value and limit; and good ones that are not."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import hf_minilm
from hf_minilm import (
    MiniLMConfig,
    MiniLMForCausalLM,
    MiniLMForConditionalGeneration,
    MiniLMForMaskedLM,
    MiniLMForMultipleChoice,
    MiniLMForNextSentencePrediction,
    MiniLMForPreTraining,
    MiniLMForQuestionAnswering,
    MiniLMForSequenceClassification,
    MiniLMForTokenClassification,
    MiniLMModel,
    MiniLMSeq2SeqConfig,
    MiniLMSeq2SeqModel,
)
from hf_minilm.model.input_checks import assert_inside

VOCAB_SIZE, LONGEST, CLASSES, ROWS, CHOICES, LENGTH = 61, 17, 3, 4, 2, 5
SIZES = {"vocab_size": VOCAB_SIZE, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"max_position_embeddings": LONGEST, "intermediate_size": 13}
HEADS = [getattr(hf_minilm, name) for name in hf_minilm.__all__ if "For" in name or name.endswith("Model")]
HEADS = [head for head in HEADS if not head.__name__.endswith("PreTrainedModel")]
SEQ2SEQ = [MiniLMSeq2SeqModel, MiniLMForConditionalGeneration]
LABELS = {
    MiniLMForCausalLM: {"labels": "vocabulary", "shift_labels": "vocabulary"},
    MiniLMForMaskedLM: {"labels": "vocabulary"},
    MiniLMForPreTraining: {"labels": "vocabulary", "next_sentence_label": "order"},
    MiniLMForNextSentencePrediction: {"labels": "order"},
    MiniLMForSequenceClassification: {"labels": "texts"},
    MiniLMForTokenClassification: {"labels": "tokens"},
    MiniLMForQuestionAnswering: {"start_positions": "places", "end_positions": "places"},
    MiniLMForMultipleChoice: {"labels": "choices"},
    MiniLMForConditionalGeneration: {"labels": "vocabulary"},
}
LIMITS = {"vocabulary": VOCAB_SIZE, "order": 2, "texts": CLASSES, "tokens": CLASSES, "choices": CHOICES}
Inputs = dict[str, Any]


class Bad(NamedTuple):
    """An input that is wrong in one place, and what must be said of it."""

    name: str
    spoil: Callable[[Inputs], Inputs]
    said: tuple[str, ...]


@functools.cache
def model_of(head: type, *, scheme: str = "learned") -> nn.Module:
    torch.manual_seed(0)
    fields = {**SIZES, "position_embedding": scheme}
    if head in SEQ2SEQ:
        stack = MiniLMConfig(**fields, is_causal=True)
        config = MiniLMSeq2SeqConfig(
            encoder=MiniLMConfig(**fields, type_vocab_size=2), decoder=stack, decoder_start_token_id=1, pad_token_id=0
        )
    else:
        config = MiniLMConfig(**fields, type_vocab_size=2, num_labels=CLASSES)
    return head(config).eval()


def inputs_of(head: type, *, length: int = LENGTH) -> Inputs:
    """Good inputs, all of them given."""
    rows = (ROWS, CHOICES) if head is MiniLMForMultipleChoice else (ROWS,)
    generator = torch.Generator().manual_seed(1)
    inputs: Inputs = {"input_ids": torch.randint(0, VOCAB_SIZE, (*rows, length), generator=generator)}
    inputs["attention_mask"] = torch.ones(*rows, length, dtype=torch.long)
    inputs["token_type_ids"] = torch.arange(length).expand(*rows, length) % 2
    inputs["position_ids"] = torch.arange(length).expand(*rows, length)
    if head in SEQ2SEQ:
        inputs |= {f"decoder_{name}": tensor.clone() for name, tensor in inputs.items() if "type" not in name}
    for name, kind in LABELS.get(head, {}).items():
        per_token = kind in ("vocabulary", "tokens")
        inputs[name] = torch.zeros((ROWS, length) if per_token else (ROWS,), dtype=torch.long)
    return inputs


def with_value(name: str, value: Any, place: int, dtype: torch.dtype | None = None) -> Callable[[Inputs], Inputs]:
    def spoil(inputs: Inputs) -> Inputs:
        tensor = inputs[name].clone().to(dtype or inputs[name].dtype)
        tensor.view(-1)[place] = value
        return {**inputs, name: tensor}

    return spoil


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Inputs], Inputs]:
    return lambda inputs: {**inputs, name: change(inputs[name])}


def as_vectors(prefix: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Inputs], Inputs]:
    def spoil(inputs: Inputs) -> Inputs:
        rest = {name: tensor for name, tensor in inputs.items() if name != prefix + "input_ids"}
        vectors = torch.zeros(*inputs[prefix + "input_ids"].shape, SIZES["hidden_size"])
        return {**rest, prefix + "inputs_embeds": change(vectors)}

    return spoil


def only_the(*names: str) -> Callable[[Inputs], Inputs]:
    """Leave the arguments away whose length would not fit either."""
    return lambda inputs: {name: tensor for name, tensor in inputs.items() if name in names}


def outside(name: str, limit: int, *values: int) -> list[Bad]:
    says = f"must be in [0, {limit})"
    return [
        Bad(f"{name} {value} at {place}", with_value(name, value, place), (f"{name} ({value})", says))
        for value in values
        for place in (0, -1)
    ]


def of_types(name: str, *dtypes: torch.dtype) -> list[Bad]:
    return [
        Bad(f"{name} {dtype}", changed(name, lambda tensor, dtype=dtype: tensor.to(dtype)), (f"{name} ({dtype})",))
        for dtype in dtypes
    ]


def of_shapes(name: str, **changes: Callable[[torch.Tensor], torch.Tensor]) -> list[Bad]:
    said = (f"{name} ([", "must have the shape [")
    return [Bad(f"{name} {what}", changed(name, change), said) for what, change in changes.items()]


def bad_tokens(head: type, prefix: str) -> list[Bad]:
    ids, vectors = prefix + "input_ids", prefix + "inputs_embeds"
    bad = outside(ids, VOCAB_SIZE, -1, -100, -(2**40), VOCAB_SIZE, VOCAB_SIZE + 1000, 2**31)
    bad += of_types(ids, torch.float32, torch.float64, torch.bfloat16, torch.bool, torch.int16, torch.uint8)
    for what, cut in {"rows": lambda t: t[:0], "tokens": lambda t: t[..., :0]}.items():
        bad.append(Bad(f"{ids} no {what}", changed(ids, cut), (f"{ids} (0 {what})", "must have at least one")))
        cut = {"rows": lambda t: t[:0], "tokens": lambda t: t[..., :0, :]}[what]
        bad.append(Bad(f"{vectors} no {what}", as_vectors(prefix, cut), (f"{vectors} (0 {what})",)))
    bad.append(Bad(f"{vectors} whole numbers", as_vectors(prefix, torch.Tensor.long), (f"{vectors} (torch.int64)",)))
    narrow = (f"{vectors} ([", f"tokens, {SIZES['hidden_size']}]")
    bad.append(Bad(f"{vectors} too narrow", as_vectors(prefix, lambda t: t[..., :-1]), narrow))
    neither = (f"{prefix}input_ids and {prefix}inputs_embeds", "exactly one")
    both = Bad(f"{ids} and {vectors}", lambda i: {**as_vectors(prefix, lambda t: t)(i), ids: i[ids]}, neither)
    bad.append(both)
    for length in (LONGEST + 1, LONGEST + 40):
        said = (f"sequence length ({length})", f"max_position_embeddings ({LONGEST})")
        bad.append(Bad(f"{ids} of {length} tokens", lambda i, n=length: too_long(head, ids, n), said))
    if head is not MiniLMForMultipleChoice:
        bad += of_shapes(ids, flat=lambda t: t[0], deep=lambda t: t[None])
        bad.append(Bad(f"{vectors} flat", as_vectors(prefix, lambda t: t[0]), (f"{vectors} ([5, 12])",)))
    return bad


def too_long(head: type, ids: str, length: int) -> Inputs:
    short, long = inputs_of(head), inputs_of(head, length=length)
    prefix = ids.removesuffix("input_ids")
    names = ["input_ids"] + (["decoder_input_ids"] if head in SEQ2SEQ else [])
    return {name: (long if name == prefix + "input_ids" else short)[name] for name in names}


def bad_masks(prefix: str) -> list[Bad]:
    name = prefix + "attention_mask"
    bad = [
        Bad(
            f"{name} all 0 {dtype}",
            changed(name, lambda mask, dtype=dtype: torch.zeros_like(mask, dtype=dtype)),
            (f"{name} (all 0)", "at least one token"),
        )
        for dtype in (torch.int64, torch.int32, torch.bool, torch.float32)
    ]
    for value, dtype in ((-1, None), (2, None), (-10000.0, torch.float32), (float("nan"), torch.float32)):
        said = (f"{name} ({value})", "must be 1 for tokens and 0 for padding")
        bad.append(Bad(f"{name} {value}", with_value(name, value, 1, dtype), said))
    short, long = (lambda mask: mask[..., :-1]), (lambda mask: torch.cat((mask, mask[..., :1]), -1))
    # In an encoder-decoder a mask may be of another width, as where transformers reads a prompt in pieces.
    widths = {} if prefix else {"short": short, "long": long}
    return bad + of_shapes(name, **widths, one_row=lambda m: m[:1], more_rows=lambda m: torch.cat((m, m)))


def bad_positions(prefix: str) -> list[Bad]:
    name = prefix + "position_ids"
    bad = [
        Bad(f"{name} -1 at {at}", with_value(name, -1, at), ("position_ids (-1)", f"[0, {LONGEST})")) for at in (0, -1)
    ]
    for value in (LONGEST, 2**31):
        said = (f"sequence length ({value + 1})", f"max_position_embeddings ({LONGEST})")
        bad += [Bad(f"{name} {value} at {at}", with_value(name, value, at), said) for at in (0, -1)]
    bad += of_types(name, torch.float32, torch.float64, torch.bool, torch.int16)
    return bad + of_shapes(name, short=lambda t: t[..., 1:], more_rows=lambda t: torch.cat((t, t)))


def bad_types() -> list[Bad]:
    bad = outside("token_type_ids", 2, -1, -100, 2, 3, 2**31)
    bad += of_types("token_type_ids", torch.float32, torch.bool, torch.int16, torch.uint8)
    return bad + of_shapes("token_type_ids", short=lambda t: t[..., 1:])


def bad_labels(name: str, kind: str) -> list[Bad]:
    bad = of_shapes(name, more_rows=lambda labels: torch.cat((labels, labels)))
    if kind == "places":
        return bad + of_types(name, torch.float32, torch.int32, torch.bool)
    limit = LIMITS[kind]
    bad += outside(name, limit, -1, -99, -(2**31), limit, limit + 70, 2**31)
    if kind in ("vocabulary", "tokens"):
        bad += of_shapes(name, short=lambda labels: labels[:, 1:], flat=lambda labels: labels.flatten())
    if kind != "texts":
        return bad + of_types(name, torch.float32, torch.int32, torch.bool)
    several = changed(name, lambda labels: torch.zeros(ROWS, CLASSES + 1))
    return [*bad, *of_types(name, torch.int32), Bad("one column more", several, (f"{name} ([4, 4])", "[4, 3]"))]


def bad_inputs_of(head: type) -> list[Bad]:
    bad = bad_tokens(head, "") + bad_masks("") + bad_positions("") + bad_types()
    if head in SEQ2SEQ:
        bad += bad_tokens(head, "decoder_") + bad_masks("decoder_") + bad_positions("decoder_")
    for name, kind in LABELS.get(head, {}).items():
        bad += bad_labels(name, kind)
    return bad


BAD_INPUTS = {head: bad_inputs_of(head) for head in HEADS}
CASES = [pytest.param(head, bad, id=f"{head.__name__}-{bad.name}") for head in HEADS for bad in BAD_INPUTS[head]]


def test_there_are_sixty_bad_inputs_and_more_for_every_class():
    assert len(HEADS) == 11
    assert {head.__name__: len(bad) for head, bad in BAD_INPUTS.items() if len(bad) < 60} == {}


@pytest.mark.parametrize(("head", "bad"), CASES)
def test_a_bad_input_is_refused_by_name_value_and_limit(head, bad):
    inputs = bad.spoil(inputs_of(head))
    with pytest.raises(ValueError, match=".*".join(re.escape(part) for part in bad.said)) as refusal:
        model_of(head)(**inputs)
    assert "\n" not in str(refusal.value)
    assert re.search(r" must .*; .*\.$|exactly one of them must be given\.$", str(refusal.value))


@pytest.mark.parametrize("head", [MiniLMForMaskedLM, MiniLMForSequenceClassification, MiniLMForMultipleChoice])
def test_labels_given_by_place_are_checked_too(head):
    inputs = inputs_of(head)
    with pytest.raises(ValueError, match=r"labels \(-1\) must be in \[0, "):
        model_of(head)(inputs["input_ids"], None, None, None, None, inputs["labels"] - 1)


@pytest.mark.parametrize(
    ("problem", "labels", "said"),
    [
        ("regression", torch.tensor([0.0, float("nan"), 1.0, 2.0]), r"labels \(nan\) must be finite"),
        ("regression", torch.tensor([0.0, 1.0, float("inf"), 2.0]), r"labels \(inf\) must be finite"),
        ("regression", torch.zeros(3), r"labels \(\[3\]\) must have the shape \[4\] or \[4, 1\]"),
        ("multi_label_classification", torch.full((4, 1), 1.5), r"labels \(1\.5\) must be from 0 to 1"),
        ("multi_label_classification", torch.full((4, 1), -100), r"labels \(-100\) must be from 0 to 1"),
    ],
)
def test_numbers_that_are_no_labels_are_refused(problem, labels, said):
    model = MiniLMForSequenceClassification(MiniLMConfig(**SIZES, num_labels=1, problem_type=problem))
    with pytest.raises(ValueError, match=said):
        model(torch.ones(4, 5, dtype=torch.long), labels=labels)


def test_a_padding_mask_is_checked_where_somebody_else_has_encoded_the_source():
    model, inputs = model_of(MiniLMForConditionalGeneration), inputs_of(MiniLMForConditionalGeneration)
    encoded = model.get_encoder()(inputs["input_ids"])
    given = {"encoder_outputs": encoded, "decoder_input_ids": inputs["decoder_input_ids"]}
    with pytest.raises(ValueError, match=r"attention_mask \(all 0\) must be 1 for at least one token"):
        model(**given, attention_mask=torch.zeros(ROWS, LENGTH))
    with pytest.raises(ValueError, match=r"attention_mask \(\[3, 5\]\) must have the shape \[4, 5\]"):
        model(**given, attention_mask=torch.ones(ROWS - 1, LENGTH))


def result_of(head: type, inputs: Inputs, **fields: Any) -> torch.Tensor:
    outputs = model_of(head, **fields)(**inputs)
    return outputs[1] if outputs.get("loss") is not None else outputs[0]


def without(name: str) -> Callable[[Inputs], Inputs]:
    return lambda inputs: {key: tensor for key, tensor in inputs.items() if key != name}


GOOD = {
    "as they are": lambda inputs: inputs,
    "the first id": with_value("input_ids", 0, 0),
    "the last id": with_value("input_ids", VOCAB_SIZE - 1, -1),
    "int32": changed("input_ids", torch.Tensor.int),
    "int32 types": changed("token_type_ids", torch.Tensor.int),
    "a mask of booleans": changed("attention_mask", torch.Tensor.bool),
    "a mask of floats": changed("attention_mask", torch.Tensor.float),
    "no mask": without("attention_mask"),
    "the last position": with_value("position_ids", LONGEST - 1, -1),
    "one token": lambda inputs: (
        {"input_ids": inputs["input_ids"][..., :1]}
        | {name: tensor[..., :1] for name, tensor in inputs.items() if name.startswith("decoder_")}
    ),
}


@pytest.mark.parametrize("change", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("head", HEADS)
def test_a_good_input_is_not_refused(head, change):
    assert result_of(head, change(inputs_of(head))).isfinite().all()


@pytest.mark.parametrize("head", HEADS)
def test_the_longest_text_is_not_refused(head):
    assert result_of(head, inputs_of(head, length=LONGEST)).isfinite().all()


@pytest.mark.parametrize("scheme", ["none", "sinusoidal", "rope", "alibi", "relative_bias"])
@pytest.mark.parametrize("head", HEADS)
def test_schemes_without_a_table_reach_further_than_the_declared_length(head, scheme):
    inputs = inputs_of(head, length=LONGEST + 8)
    assert result_of(head, inputs, scheme=scheme).isfinite().all()
    before_the_first = {**inputs, "position_ids": inputs["position_ids"] - 3}
    assert result_of(head, before_the_first, scheme=scheme).isfinite().all()


@pytest.mark.parametrize(
    ("head", "attention"),
    [(head, attention) for head in HEADS for attention in ("eager", "sdpa")] + [(MiniLMForMaskedLM, "minilm_varlen")],
)
def test_a_row_of_padding_gives_finite_numbers_and_leaves_the_others_alone(head, attention):
    model = model_of(head)
    inputs = only_the("input_ids", "attention_mask", "decoder_input_ids")(inputs_of(head))
    padded = {**inputs, "attention_mask": inputs["attention_mask"].clone()}
    padded["attention_mask"][1] = 0
    model.set_attn_implementation(attention)
    try:
        expected, found = model(**inputs)[0], model(**padded)[0]
    finally:
        model.set_attn_implementation("sdpa")
    assert found.isfinite().all()
    others = [0, 2, 3]
    torch.testing.assert_close(found[others], expected[others], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", [head for head in HEADS if head in LABELS])
def test_labels_that_are_all_ignored_are_not_refused(head):
    inputs = inputs_of(head)
    for name in LABELS[head]:
        inputs[name] = torch.full_like(inputs[name], -100)
    assert model_of(head)(**inputs).loss == 0


@pytest.mark.parametrize("head", HEADS)
def test_the_highest_label_is_not_refused(head):
    inputs = inputs_of(head)
    for name, kind in LABELS.get(head, {}).items():
        inputs[name] = torch.full_like(inputs[name], LIMITS.get(kind, LENGTH) - 1)
    assert result_of(head, inputs).isfinite().all()


def test_labels_of_packed_rows_may_be_one_a_token():
    inputs = inputs_of(MiniLMForPreTraining)
    inputs["next_sentence_label"] = torch.full((ROWS, LENGTH), -100)
    inputs["next_sentence_label"][:, 0] = 1
    assert model_of(MiniLMForPreTraining)(**inputs).loss.isfinite()


def test_whole_masks_and_vectors_are_not_refused():
    model, inputs = model_of(MiniLMModel), inputs_of(MiniLMModel)
    vectors = model.get_input_embeddings()(inputs["input_ids"])
    whole = torch.ones(ROWS, 1, LENGTH, LENGTH, dtype=torch.bool)
    expected = model(inputs["input_ids"]).last_hidden_state
    torch.testing.assert_close(model(inputs_embeds=vectors, attention_mask=whole).last_hidden_state, expected)


@pytest.mark.parametrize("scheme", ["learned", "rope"])
@torch.no_grad()
def test_every_way_of_writing_gives_what_it_gave(scheme):
    """With left padding, whose rows differ, and with caches, whose masks are wider than the tokens."""
    model, assistant = model_of(MiniLMForCausalLM, scheme=scheme), model_of(MiniLMForCausalLM, scheme="none")
    prompt = {name: inputs_of(MiniLMModel)[name][:2] for name in ("input_ids", "attention_mask")}
    prompt["attention_mask"] = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(**prompt, **settings, use_cache=False)
    assert torch.equal(model.generate(**prompt, **settings), expected)
    assert torch.equal(model.generate(**prompt, **settings, prefill_chunk_size=3), expected)
    assert torch.equal(model.generate(**prompt, **settings, cache_implementation="static"), expected)
    assert model.generate(**prompt, **settings, num_beams=3).shape[1] > LENGTH
    one = {name: tensor[1:] for name, tensor in prompt.items()}
    assert torch.equal(model.generate(**one, **settings, assistant_model=assistant), expected[1:])


def test_training_in_bfloat16_with_checkpointing_is_not_refused():
    model = MiniLMForMaskedLM(MiniLMConfig(**SIZES)).to(torch.bfloat16).train()
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    inputs = inputs_of(MiniLMForMaskedLM)
    model(input_ids=inputs["input_ids"], labels=inputs["labels"]).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("head", [MiniLMForMaskedLM, MiniLMForSequenceClassification, MiniLMForConditionalGeneration])
def test_compiled_code_checks_nothing_and_is_one_graph(head):
    torch.compiler.reset()
    model, inputs = model_of(head), inputs_of(head)
    compiled = torch.compile(model.forward, fullgraph=True, backend="aot_eager")
    inputs = {name: tensor for name, tensor in inputs.items() if name not in LABELS[head] and "position" not in name}
    torch.testing.assert_close(compiled(**inputs)[0], model(**inputs)[0])
    torch.compiler.reset()


@torch.no_grad()
def test_an_exported_program_has_no_check_in_it():
    model, inputs = model_of(MiniLMForTokenClassification), inputs_of(MiniLMForTokenClassification)
    given = only_the("input_ids", "attention_mask", "token_type_ids")(inputs)
    program = torch.export.export(model, (), given, strict=False)
    called = {str(node.target) for node in program.graph.nodes}
    assert not any("aminmax" in name or "_assert_async" in name for name in called)
    torch.testing.assert_close(program.module()(**given)["logits"], model(**given).logits)


def test_fake_and_meta_tensors_pass():
    inputs = only_the("input_ids", "token_type_ids")(inputs_of(MiniLMModel))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = {name: mode.from_tensor(tensor) for name, tensor in inputs.items()}
        assert MiniLMModel(model_of(MiniLMModel).config)(**fake).last_hidden_state.shape == (ROWS, LENGTH, 12)
    meta = MiniLMModel(model_of(MiniLMModel).config).to("meta")
    outputs = meta(**{name: tensor.to("meta") for name, tensor in inputs.items()})
    assert outputs.last_hidden_state.shape == (ROWS, LENGTH, 12)


@pytest.mark.parametrize("ignored", [False, True])
def test_what_a_device_asserts_is_what_is_refused_on_a_cpu(ignored):
    good = torch.tensor([[0, 6], [3, -100 if ignored else 1]])
    assert_inside(good, 7, "labels must be in [0, 7); mend them.", ignored=ignored)
    for value in (-1, -99, 7, 2**31, *(() if ignored else (-100,))):
        bad = good.masked_fill(good == 3, value)
        with pytest.raises(RuntimeError, match=r"labels must be in \[0, 7\); mend them\."):
            assert_inside(bad, 7, "labels must be in [0, 7); mend them.", ignored=ignored)
