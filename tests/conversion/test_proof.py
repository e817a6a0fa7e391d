"""The proof sees what a conversion gets wrong, and a model in memory is left as it was."""

import dataclasses

import pytest
import torch
from native_models import CASES, CHOICES, config_of

from hf_minilm import MiniLMConfig, MiniLMForMaskedLM
from hf_minilm.conversion import ARCHITECTURES, from_native, to_native
from hf_minilm.conversion.architecture import Architecture
from hf_minilm.conversion.proof import GREEDY_TOKENS, in_float32
from hf_minilm.conversion.tensors import Names

SEVERAL = ["bert", "gpt2", "llama"]


@pytest.fixture
def native_model(randomised):
    def build(architecture, choice=None, number=0):
        choice = choice or next(iter(CHOICES[architecture]))
        return randomised(ARCHITECTURES[architecture].heads[number].native_class, config_of(architecture, choice))

    return build


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_two_names_that_are_swapped_are_seen(architecture, native_model, monkeypatch):
    native, right = (
        native_model(architecture, *{"llama": ["dynamic"]}.get(architecture, [])),
        ARCHITECTURES[architecture],
    )
    swap = {"layers.{}.attention_norm": "layers.{}.feed_forward_norm"}
    swap |= {new: old for old, new in swap.items()}
    body = tuple(Names(swap.get(line.ours, line.ours), line.native, line.operation) for line in right.body)
    monkeypatch.setitem(ARCHITECTURES, architecture, dataclasses.replace(right, body=body))
    with pytest.raises(
        ValueError, match=r"both models must compute the same, and do not: .*logits: largest difference"
    ):
        from_native(native)


@pytest.mark.parametrize(
    ("architecture", "wrong"),
    [
        ("bert", {"norm_eps": 1e-5}),
        ("bert", {"hidden_act": "gelu_new"}),
        ("gpt2", {"norm_eps": 1e-6}),
        ("gpt2", {"hidden_act": "gelu"}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 10_100.0}}),
        ("mistral", {"layer_types": ["full_attention"] * 3, "sliding_window": None}),
        ("mistral", {"sliding_window": 6}),
        ("qwen3", {"norm_eps": 1e-5}),
    ],
    ids=str,
)
def test_a_field_that_is_said_wrongly_is_seen_before_the_weights_and_in_what_is_computed(
    architecture, wrong, native_model, monkeypatch
):
    native, right = native_model(architecture), ARCHITECTURES[architecture]

    class Wrong(type(right)):
        def our_fields(self, native):
            return {**super().our_fields(native), **wrong}

    fields = {field.name: getattr(right, field.name) for field in dataclasses.fields(right)}
    monkeypatch.setitem(ARCHITECTURES, architecture, Wrong(**fields))
    with pytest.raises(ValueError, match="must be expressible as hf_minilm, and is not"):
        from_native(native)
    monkeypatch.setattr("hf_minilm.conversion.convert.import_obstacles", lambda *_: [])
    with pytest.raises(ValueError, match="both models must compute the same, and do not"):
        from_native(native)


def test_weights_that_are_not_finite_prove_nothing(native_model):
    native = native_model("bert")
    native.bert.encoder.layer[1].output.dense.weight.data[3, 2] = float("nan")
    with pytest.raises(ValueError, match="largest difference nan"):
        from_native(native)


@pytest.mark.parametrize("architecture", [name for name in CHOICES if name not in ("bert", "roberta")])
def test_decoders_write_the_same_tokens(architecture, native_model):
    proof = from_native(native_model(architecture)).proof
    assert (proof.prompts, proof.greedy_tokens, proof.greedy_equal) == (4, GREEDY_TOKENS, 4 * GREEDY_TOKENS)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "qwen3"])
def test_the_tokens_of_the_proof_are_those_that_the_native_model_writes(architecture, native_model):
    native = native_model(architecture)
    ours = from_native(native).model
    prompt = torch.tensor([[7, 11, 5, 23], [9, 31, 60, 4]])
    settings = {"max_new_tokens": 32, "do_sample": False, "eos_token_id": None}
    torch.testing.assert_close(ours.generate(prompt, **settings), native.generate(prompt, **settings))


@pytest.mark.parametrize(("architecture", "choice", "native_class"), [case for case in CASES if case[0] in SEVERAL])
def test_loss_and_gradient_of_the_embeddings_are_the_native_ones(architecture, choice, native_class, randomised):
    head = ARCHITECTURES[architecture].head_of_native(native_class)
    native = randomised(head.native_class, config_of(architecture, choice), **head.arguments)
    ours = from_native(native).model
    tokens = torch.randint(6, 67, (1, 11), generator=torch.Generator().manual_seed(2))
    gradients = []
    for model in (native, ours):
        given = tokens[None] if "Choice" in native_class else tokens
        output = next(out for name, out in model(given).items() if name.endswith(("logits", "last_hidden_state")))
        output.square().mean().backward()
        gradients.append(model.get_input_embeddings().weight.grad)
    assert gradients[0].abs().max() > 0 or "Choice" in native_class
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)


def test_weights_in_double_precision_are_not_rounded(native_model):
    native = native_model("bert").to(torch.float64)
    with torch.no_grad():
        for parameter in native.parameters():
            parameter.mul_(1 + 2.0**-40)
    before = {name: tensor.clone() for name, tensor in native.state_dict().items()}
    back = to_native(from_native(native).model, "bert").model
    for model in (native, back):
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("architecture", SEVERAL)
def test_a_model_in_memory_is_left_as_it_was(architecture, native_model):
    native = native_model(architecture).to(torch.bfloat16).train()
    before = {name: tensor.clone() for name, tensor in native.state_dict().items()}
    ours = from_native(native).model
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(1)
    assert native.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in native.state_dict().items())
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.bfloat16}


def test_a_model_in_memory_is_left_as_it_was_where_the_proof_fails(native_model, monkeypatch):
    native = native_model("bert").to(torch.bfloat16)
    monkeypatch.setattr("hf_minilm.conversion.proof.TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="both models must compute the same"):
        from_native(native)
    assert native.dtype == torch.bfloat16


def test_float32_and_back_changes_no_bit():
    model = MiniLMForMaskedLM(MiniLMConfig(vocab_size=31, hidden_size=12, num_hidden_layers=1, num_attention_heads=2))
    model.to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with in_float32(model):
        assert model.dtype == torch.float32
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_rows_longer_than_the_positions_are_not_asked_for(randomised):
    config = config_of("gpt2", "plain")
    config.n_positions = 8
    proof = from_native(randomised(ARCHITECTURES["gpt2"].heads[0].native_class, config)).proof
    assert (proof.greedy_tokens, proof.greedy_equal) == (7, 28)


def test_a_large_model_writes_the_tokens_of_all_prompts_together(native_model, monkeypatch):
    monkeypatch.setattr("hf_minilm.conversion.proof._LARGE", 100)
    proof = from_native(native_model("llama")).proof
    assert (proof.prompts, proof.greedy_tokens, proof.greedy_equal) == (4, GREEDY_TOKENS // 4, GREEDY_TOKENS)


def test_ours_that_was_trained_here_becomes_native_and_comes_back_with_the_same_bits():
    torch.manual_seed(0)
    config = MiniLMConfig.preset("bert", "tiny", vocab_size=67, num_hidden_layers=2, initializer_range=0.2)
    ours = MiniLMForMaskedLM(config).eval()
    back = from_native(to_native(ours, "bert").model).model
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert back.config.to_diff_dict().keys() - {"architectures", "dtype"} <= ours.config.to_diff_dict().keys() | {
        "dtype"
    }


def test_an_architecture_says_nothing_in_its_tables_that_its_classes_have_not():
    for architecture in ARCHITECTURES.values():
        assert isinstance(architecture, Architecture)
        known = vars(architecture.config_class)["__annotations__"].keys()
        assert {native for _, native in architecture.same} <= known
        assert architecture.ignored | architecture.training | set(architecture.native_fixed) <= known
        ours = architecture.our_config_class.__dataclass_fields__.keys() | MiniLMConfig.__dataclass_fields__.keys()
        assert {name.rpartition(".")[2] for name in (*dict(architecture.same), *architecture.fixed)} <= ours
