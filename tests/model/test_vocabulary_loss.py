"""The loss without full logits: the same value and the same gradients, in less memory."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM
from hf_minilm.model import vocabulary_loss
from hf_minilm.model.vocabulary_loss import vocabulary_cross_entropy

VOCABULARY = 53


@pytest.fixture(params=["one chunk", "many chunks and blocks"])
def small_chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "one chunk":
        monkeypatch.setitem(vocabulary_loss._CHUNK_ELEMENTS, "cpu", 7 * VOCABULARY)
        monkeypatch.setattr(vocabulary_loss, "_CACHE_BYTES", 3 * VOCABULARY * 4)


def example(*, bias: bool = False, dtype: torch.dtype = torch.float32, number: int = 31):
    generator = torch.Generator().manual_seed(3)
    hidden_states = torch.randn(number, 11, generator=generator).to(dtype).requires_grad_()
    projection = nn.Linear(11, VOCABULARY, bias=bias, dtype=dtype)
    for parameter in projection.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).to(dtype)
    return hidden_states, projection, torch.randint(VOCABULARY, (number,), generator=generator)


def loss_and_gradients(implementation: str, *arguments, count=None, label_smoothing=0.0, factor=1.0):
    hidden_states, projection, labels = arguments
    loss = vocabulary_cross_entropy(
        hidden_states,
        projection,
        labels,
        count=count,
        label_smoothing=label_smoothing,
        implementation=implementation,
    )
    return [loss.detach(), *torch.autograd.grad(loss * factor, [hidden_states, *projection.parameters()])]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("implementation", ["chunked", "torch"])
@pytest.mark.parametrize(
    "settings", [{}, {"label_smoothing": 0.1}, {"count": torch.tensor(77.0)}, {"count": 5, "factor": 2.5}], ids=str
)
@pytest.mark.parametrize("bias", [False, True])
def test_the_loss_and_its_gradients_equal_those_of_torchs_cross_entropy_on_full_logits(implementation, settings, bias):
    if not hasattr(nn.functional, "linear_cross_entropy") and implementation == "torch":
        pytest.skip("this torch has no linear_cross_entropy")
    found = loss_and_gradients(implementation, *example(bias=bias), **settings)
    hidden_states, projection, labels = example(bias=bias)
    count = float(settings.get("count", len(labels)))
    expected = nn.functional.cross_entropy(
        projection(hidden_states), labels, reduction="sum", label_smoothing=settings.get("label_smoothing", 0.0)
    )
    loss = expected / count
    gradients = torch.autograd.grad(loss * settings.get("factor", 1.0), [hidden_states, *projection.parameters()])
    for ours, theirs in zip(found, [loss.detach(), *gradients], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_gradients_are_those_of_finite_differences(label_smoothing):
    hidden_states, projection, labels = example(bias=True, dtype=torch.float64, number=9)
    share = torch.tensor(1 / 9, dtype=torch.float64)

    def loss(hidden_states, weight, bias):
        return vocabulary_loss.ChunkedCrossEntropy.apply(hidden_states, weight, bias, labels, share, label_smoothing)

    assert torch.autograd.gradcheck(loss, (hidden_states, projection.weight, projection.bias))


@pytest.mark.usefixtures("small_chunks")
def test_under_bf16_it_is_as_near_to_the_float32_truth_as_full_logits_are():
    truth = loss_and_gradients("plain", *example(bias=True))
    errors = {}
    for implementation in ("plain", "chunked"):
        with torch.autocast("cpu", torch.bfloat16):
            found = loss_and_gradients(implementation, *example(bias=True))
        assert all(tensor.dtype == torch.float32 for tensor in found)
        pairs = zip(found, truth, strict=True)
        errors[implementation] = [float((ours - exact).norm() / exact.norm()) for ours, exact in pairs]
    assert max(errors["chunked"]) < 0.02
    assert all(ours <= 1.1 * theirs + 1e-6 for ours, theirs in zip(errors["chunked"], errors["plain"], strict=True))


class LargestTensor(TorchDispatchMode):
    """Notes the most elements of any tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_tensor_is_as_large_as_the_logits(monkeypatch):
    monkeypatch.setitem(vocabulary_loss._CHUNK_ELEMENTS, "cpu", 40 * VOCABULARY)
    arguments = example(number=1000)
    for implementation, most in (("chunked", 1000 * 11), ("plain", 1000 * VOCABULARY)):
        with LargestTensor() as largest:
            loss_and_gradients(implementation, *arguments)
        assert largest.elements == most


def hessian_times_ones(model: nn.Module, tokens: torch.Tensor) -> list[torch.Tensor]:
    parameters = list(model.parameters())
    loss = model(tokens, labels=tokens).loss
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    total = sum(gradient.sum() for gradient in gradients if gradient is not None)
    return torch.autograd.grad(total, parameters, allow_unused=True)


def test_second_derivatives_are_refused_where_they_would_lack_a_part_and_are_right_where_plain_is_chosen(
    make_model, draw_tokens
):
    model, tokens = make_model(MiniLMForCausalLM, tie_word_embeddings=False).double(), draw_tokens(2, 5)
    for implementation in ("auto", "chunked"):
        model.vocabulary_loss = implementation
        with pytest.raises(ValueError, match=r"create_graph \(True\) must be False with vocabulary_loss chunked"):
            hessian_times_ones(model, tokens)
    model.vocabulary_loss = "plain"
    index = [name for name, _ in model.named_parameters()].index("lm_head.weight")
    found, gradients = hessian_times_ones(model, tokens)[index], []
    for step in (1e-4, -2e-4):  # as attention's softmax is in float32
        for parameter in model.parameters():
            parameter.data += step
        gradients.append(torch.autograd.grad(model(tokens, labels=tokens).loss, model.lm_head.weight)[0])
    torch.testing.assert_close(found, (gradients[0] - gradients[1]) / 2e-4, atol=1e-3, rtol=1e-3)
    assert found.abs().max() > 0.1


def test_without_a_gradient_nothing_is_made_for_one():
    hidden_states, projection, labels = example()
    with torch.no_grad():
        loss = vocabulary_cross_entropy(hidden_states, projection, labels, implementation="chunked")
    assert not loss.requires_grad
    projection.requires_grad_(False)
    loss = vocabulary_cross_entropy(hidden_states, projection, labels, implementation="chunked")
    loss.backward()
    assert hidden_states.grad is not None
    assert projection.weight.grad is None


def test_no_predicted_token_is_a_loss_of_zero_with_gradients_of_zero():
    hidden_states, projection, labels = example(bias=True)
    found = loss_and_gradients("auto", hidden_states[:0].detach().requires_grad_(), projection, labels[:0])
    assert all(torch.equal(tensor, torch.zeros_like(tensor)) for tensor in found)


def test_huge_scores_give_finite_losses_and_gradients():
    hidden_states, projection, labels = example()
    projection.weight.data *= 1e4
    found = loss_and_gradients("chunked", hidden_states, projection, labels)
    assert all(tensor.isfinite().all() for tensor in found)


class Adapter(nn.Linear):
    """A projection that does more than its weight says."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(hidden_states)


def hooked(projection: nn.Linear) -> nn.Linear:
    projection.register_forward_hook(lambda module, inputs, output: 2 * output)
    return projection


@pytest.mark.parametrize(
    "make", [Adapter, lambda *sizes, **rest: hooked(nn.Linear(*sizes, **rest))], ids=["class", "hook"]
)
def test_a_projection_that_does_more_than_multiply_is_called_as_it_is(make):
    hidden_states, plain, labels = example()
    projection = make(11, VOCABULARY, bias=False)
    projection.weight.data = plain.weight.data
    found = vocabulary_cross_entropy(hidden_states, projection, labels)
    torch.testing.assert_close(found, nn.functional.cross_entropy(2 * plain(hidden_states), labels))
    with pytest.raises(ValueError, match=r"vocabulary_loss \(chunked\) must have an ordinary linear layer"):
        vocabulary_cross_entropy(hidden_states, projection, labels, implementation="chunked")


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match=r"vocabulary_loss \(chunky\) must be one of auto, chunked, plain"):
        vocabulary_cross_entropy(*example(), implementation="chunky")


def test_ligers_kernel_is_given_what_its_interface_asks_for(monkeypatch):
    given = {}

    def kernel(hidden_states, weight, labels, bias=None, reduction="mean", label_smoothing=0.0, accum_dtype=None):
        given.update(reduction=reduction, accum_dtype=accum_dtype)
        logits = nn.functional.linear(hidden_states, weight, bias)
        return nn.functional.cross_entropy(logits, labels, reduction=reduction, label_smoothing=label_smoothing)

    package = SimpleNamespace(liger_fused_linear_cross_entropy=kernel)
    monkeypatch.setattr(vocabulary_loss.importlib, "import_module", lambda name: package)
    found = loss_and_gradients("liger", *example(bias=True), count=40, label_smoothing=0.1)
    for ours, theirs in zip(
        found, loss_and_gradients("plain", *example(bias=True), count=40, label_smoothing=0.1), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    assert given == {"reduction": "sum", "accum_dtype": torch.float32}


@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForCausalLM])
def test_a_model_trains_the_same_whichever_way_it_is_asked_for(make_model, draw_tokens, model_class):
    input_ids, results = draw_tokens(3, 7), []
    for implementation in ("plain", "chunked"):
        model = make_model(model_class).train()
        model.vocabulary_loss = implementation
        loss = model(input_ids, labels=input_ids).loss
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("size", [VOCABULARY, 4096, 9001])
def test_the_kernel_of_a_gpu_gives_the_losses_and_gradients_of_the_plain_form(size, label_smoothing):
    logits, share = torch.randn(7, size).mul(3), torch.tensor(0.25)
    labels = torch.tensor([0, size - 1, *torch.randint(size, (5,)).tolist()])
    on_gpu, untouched = logits.cuda(), logits.cuda()
    expected = vocabulary_loss.losses_into_gradients(logits, labels, label_smoothing, share=share)
    found = vocabulary_loss.losses_into_gradients(on_gpu, labels.cuda(), label_smoothing, share=share.cuda())
    alone = vocabulary_loss.losses_into_gradients(untouched, labels.cuda(), label_smoothing, share=None)
    torch.testing.assert_close(torch.stack((found, alone)).cpu(), expected.expand(2), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(on_gpu.cpu(), logits, atol=1e-6, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("implementation", ["chunked", "torch"])
def test_on_a_gpu_in_bf16_the_loss_is_near_that_of_full_logits(implementation):
    if not hasattr(nn.functional, "linear_cross_entropy") and implementation == "torch":
        pytest.skip("this torch has no linear_cross_entropy")
    hidden_states, projection, labels = (part.to("cuda") for part in example(number=4096))
    hidden_states = hidden_states.detach().requires_grad_()
    results = []
    for way in ("plain", implementation):
        with torch.autocast("cuda", torch.bfloat16):
            results.append(loss_and_gradients(way, hidden_states, projection, labels))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=2e-2)
