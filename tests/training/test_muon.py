import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn
from torch.optim._muon import _zeropower_via_newtonschulz
from transformers import PreTrainedModel

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMForConditionalGeneration, MiniLMForMaskedLM
from hf_minilm.data.world import World
from hf_minilm.model.configuration_minilm_seq2seq import MiniLMSeq2SeqConfig
from hf_minilm.training import loop, stacked_muon
from hf_minilm.training.muon import MUON_GROUP, layer_matrices
from hf_minilm.training.optimizer import build_optimizer, parameter_groups, set_learning_rate
from hf_minilm.training.pretrain import pretrain
from hf_minilm.training.recipe import OptimizerSettings, load_recipe
from hf_minilm.training.stacked_muon import newton_schulz

SETTINGS = OptimizerSettings(name="muon", learning_rate=3e-3, momentum=0.9, weight_decay=0.1)
SIZES = {
    "vocab_size": 11,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 20,
}
ATTENTION = ["attention.key", "attention.output", "attention.query", "attention.value"]
CROSS_ATTENTION = [f"cross_{name}" for name in ATTENTION]
PLAIN, GATED = ["feed_forward.down", "feed_forward.up"], ["feed_forward.down", "feed_forward.gate", "feed_forward.up"]


def masked(seed: int = 0) -> MiniLMForMaskedLM:
    """Gated and tied, with a prediction transform, without biases."""
    torch.manual_seed(seed)
    return MiniLMForMaskedLM(MiniLMConfig.preset("modern", "tiny", **SIZES))


def causal(seed: int = 0) -> MiniLMForCausalLM:
    """With biases, a table of positions, and a vocabulary projection of its own."""
    torch.manual_seed(seed)
    return MiniLMForCausalLM(MiniLMConfig.preset("gpt2", "tiny", **SIZES, tie_word_embeddings=False))


def encoder_decoder(seed: int = 0) -> MiniLMForConditionalGeneration:
    torch.manual_seed(seed)
    return MiniLMForConditionalGeneration(MiniLMSeq2SeqConfig.preset("vaswani2017", "tiny", **SIZES))


def give_gradients(model: PreTrainedModel, step: int) -> None:
    ids = torch.randint(1, 11, (3, 7), generator=torch.Generator().manual_seed(step))
    model(input_ids=ids, labels=ids.roll(1, dims=1)).loss.backward()


def train(model: PreTrainedModel, optimizer: Any, steps: int) -> None:
    for step in range(steps):
        give_gradients(model, step)
        optimizer.step()
        optimizer.zero_grad()


def assert_same_weights(model: nn.Module, other: nn.Module) -> None:
    for (name, parameter), (_, twin) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(parameter, twin), name


@pytest.mark.parametrize(
    ("build", "layers", "decayed"),
    [
        (masked, {"model": [*ATTENTION, *GATED]}, ["transform.dense.weight"]),
        (causal, {"model": [*ATTENTION, *PLAIN]}, ["lm_head.weight"]),
        (
            encoder_decoder,
            {"model.encoder": [*ATTENTION, *PLAIN], "model.decoder": [*ATTENTION, *CROSS_ATTENTION, *PLAIN]},
            [],
        ),
    ],
)
def test_muon_takes_the_projections_in_the_layers_and_adamw_all_else_and_each_parameter_stands_once(
    build: Any, layers: dict[str, list[str]], decayed: list[str]
) -> None:
    model = build()
    groups = {group["name"]: group for group in build_optimizer(model, SETTINGS).param_groups}
    stacks = [f"{stack}.layers.{index}.{name}" for stack, names in layers.items() for index in (0, 1) for name in names]
    assert groups[MUON_GROUP]["param_names"] == sorted(f"{name}.weight" for name in stacks)
    assert groups.get("decay", {"param_names": []})["param_names"] == decayed
    assert [group["weight_decay"] for group in groups.values()] == [0.1] * (len(groups) - 1) + [0.0]
    listed = [parameter for group in groups.values() for parameter in group["params"]]
    assert sorted(map(id, listed)) == sorted(id(parameter) for parameter in model.parameters())


def test_the_momentum_and_the_rest_of_the_settings_reach_the_groups_that_use_them() -> None:
    muon, *others = build_optimizer(masked(), SETTINGS).param_groups
    assert (muon["lr"], muon["momentum"], muon["nesterov"]) == (3e-3, 0.9, True)
    for group in others:
        assert (group["lr"], group["betas"], group["eps"], group["fused"]) == (3e-3, (0.9, 0.98), 1e-8, True)


def test_a_projection_that_is_tied_to_an_embedding_is_an_embedding() -> None:
    model = masked()
    model.model.layers[0].attention.query.weight = model.model.embeddings.tokens.weight
    groups = build_optimizer(model, SETTINGS).param_groups
    assert not [name for name in groups[0]["param_names"] if "layers.0.attention.query" in name]
    assert "model.embeddings.tokens.weight" in groups[-1]["param_names"]


@pytest.mark.parametrize("build", [masked, causal, encoder_decoder])
def test_the_steps_are_those_of_torchs_muon_and_torchs_adamw_each_on_its_own_parameters(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked_muon, "product_dtype", lambda _: torch.bfloat16)
    model = build().eval()
    twin = copy.deepcopy(model)
    optimizer = build_optimizer(model, SETTINGS)
    matrices = layer_matrices(twin)
    groups = parameter_groups(twin, 0.1, matrices=matrices)[1:]
    muon = torch.optim.Muon(matrices, lr=3e-3, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.98), eps=1e-8, fused=True)
    for step in range(4):
        give_gradients(model, step)
        give_gradients(twin, step)
        for each in (optimizer, muon, adamw):
            each.step()
            each.zero_grad()
    assert_same_weights(model, twin)


@pytest.mark.parametrize("gradient", [float("nan"), float("inf"), 1e30])
def test_where_something_is_not_finite_nothing_moves_and_all_else_has_the_same_bits(gradient: float) -> None:
    model = causal().eval()
    twin = copy.deepcopy(model)
    optimizer, other = build_optimizer(model, SETTINGS), build_optimizer(twin, SETTINGS)
    for step in range(4):
        if step in (0, 2):  # with no state yet, and with some
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, gradient)
            optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
            optimizer.step()
            optimizer.zero_grad()
        give_gradients(model, step)
        give_gradients(twin, step)
        optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
        for each in (optimizer, other):
            each.step()
            each.zero_grad()
    assert_same_weights(model, twin)
    for parameter, expected in zip(model.parameters(), twin.parameters(), strict=True):
        for name, value in other.state[expected].items():
            assert torch.equal(optimizer.state[parameter][name], value), name


def test_a_cpu_without_products_in_bfloat16_orthogonalises_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    for dtype in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(stacked_muon, "product_dtype", lambda _, dtype=dtype: dtype)
        torch.manual_seed(0)
        matrix = nn.Parameter(torch.zeros(48, 64))
        matrix.grad = torch.randn(48, 64)
        stacked_muon.StackedMuon([matrix], lr=1.0).step()
        steps.append(matrix.detach())
    rounded, exact = steps
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).norm() < 0.03 * exact.norm()


def test_the_type_of_the_products_is_torchs_wherever_it_has_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_kernel, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda has=has_kernel: has, raising=False)
        stacked_muon.product_dtype.cache_clear()
        available = torch.backends.mkldnn.is_available()
        assert stacked_muon.product_dtype("cpu") == (expected if available else torch.float32)
        assert stacked_muon.product_dtype("cuda") == torch.bfloat16
    monkeypatch.undo()
    stacked_muon.product_dtype.cache_clear()


@pytest.mark.parametrize("largest", [1, 2 * 48 * 64, 2**20], ids=["one by one", "two", "all"])
def test_stacks_of_any_size_are_orthogonalised_as_torch_orthogonalises_each(
    largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_minilm.training.stacked_muon._LARGEST_STACK", {"cpu": largest})
    torch.manual_seed(0)
    shapes = [(48, 64), (64, 48), (48, 48), (48, 64), (64, 48), (48, 48), (48, 64)]
    matrices = [torch.randn(shape).bfloat16() for shape in shapes]
    before = [matrix.clone() for matrix in matrices]
    group = torch.optim.Muon([nn.Parameter(torch.ones(2, 2))]).param_groups[0]
    settings = group["ns_coefficients"], group["ns_steps"], group["eps"]
    for found, matrix, kept in zip(newton_schulz(matrices, group), matrices, before, strict=True):
        assert torch.equal(matrix, kept)
        torch.testing.assert_close(found, _zeropower_via_newtonschulz(kept.clone(), *settings), rtol=0, atol=2e-2)


def test_a_matrix_moves_along_the_nearest_orthogonal_one_about_as_far_as_adamw_would_move_it() -> None:
    model = masked()
    optimizer = build_optimizer(model, OptimizerSettings(name="muon", learning_rate=1e-2, weight_decay=0.0))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    give_gradients(model, 0)
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    optimizer.step()
    for name, parameter in zip(
        optimizer.param_groups[0]["param_names"], optimizer.param_groups[0]["params"], strict=True
    ):
        update = ((before[name] - parameter.detach()) / 1e-2 / (0.2 * max(parameter.shape) ** 0.5)).double()
        left, _, right = torch.linalg.svd(gradients[name].double(), full_matrices=False)
        # Jordan's five iterations leave singular values of about 0.7 to 1.2, and those of a gradient near 0 behind.
        assert torch.linalg.matrix_norm(update, 2) < 1.3, name
        aligned = torch.linalg.matrix_norm(update @ (left @ right).mT, "nuc") / min(parameter.shape)
        assert 0.5 < aligned < 1.2, name


def test_a_parameter_without_a_gradient_stays_as_it_is_and_has_no_state() -> None:
    model = masked()
    idle = model.model.layers[1].feed_forward.up.weight
    before = idle.detach().clone()
    optimizer = build_optimizer(model, SETTINGS)
    for step in range(2):
        give_gradients(model, step)
        idle.grad = None
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(idle, before)
    assert idle not in optimizer.state
    assert len(optimizer.state) == len(list(model.parameters())) - 1


def test_the_loss_of_a_closure_is_returned_and_its_gradients_are_those_of_the_step() -> None:
    model, twin = masked().eval(), masked().eval()
    optimizer = build_optimizer(model, SETTINGS)

    def closure() -> float:
        give_gradients(model, 0)
        return 2.5

    assert optimizer.step(closure) == 2.5
    train(twin, build_optimizer(twin, SETTINGS), 1)
    assert_same_weights(model, twin)


def test_accelerate_prepares_it_as_one_optimizer_and_its_groups_still_decide_the_step() -> None:
    model, twin = masked().eval(), masked().eval()
    accelerator = Accelerator(cpu=True)
    wrapped, prepared = accelerator.prepare(model, build_optimizer(model, SETTINGS))
    alone = build_optimizer(twin, SETTINGS)
    for step, rate in enumerate([3e-3, 1e-3, 2e-3]):
        set_learning_rate(prepared, rate)
        set_learning_rate(alone, rate)
        give_gradients(wrapped, step)
        give_gradients(twin, step)
        accelerator.clip_grad_norm_(wrapped.parameters(), 0.5)
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        for each in (prepared, alone):
            each.step()
            each.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())
    assert_same_weights(model, twin)
    set_learning_rate(prepared, 0.0)
    train(model, prepared, 1)
    assert_same_weights(model, twin)


def test_its_state_dictionary_goes_on_with_the_same_bits() -> None:
    model = causal().eval()
    optimizer = build_optimizer(model, SETTINGS)
    train(model, optimizer, 3)
    twin = copy.deepcopy(model)
    resumed = build_optimizer(twin, OptimizerSettings(name="muon", momentum=0.5))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, 3)
    train(twin, resumed, 3)
    assert_same_weights(model, twin)


def test_a_group_that_is_added_later_is_adamws_and_learns() -> None:
    model = masked().eval()
    late = model.model.layers[0].feed_forward.up.weight.requires_grad_(False)
    optimizer = build_optimizer(model, SETTINGS)
    before = late.detach().clone()
    optimizer.add_param_group({"params": [("late", late.requires_grad_(True))]})
    train(model, optimizer, 1)
    assert optimizer.state[late].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert not torch.equal(late, before)


def test_matrices_can_be_all_there_is_to_train() -> None:
    model = masked().eval()
    matrices = layer_matrices(model)
    model.requires_grad_(False)
    for matrix in matrices:
        matrix.requires_grad_(True)
    optimizer = build_optimizer(model, SETTINGS)
    assert [group["name"] for group in optimizer.param_groups] == [MUON_GROUP]
    before = [matrix.detach().clone() for matrix in matrices]
    train(model, optimizer, 1)
    assert not any(torch.equal(matrix, old) for matrix, old in zip(matrices, before, strict=True))


def test_a_model_without_matrices_in_layers_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match=r"matrices in layers of Sequential \(0\) must be trainable with .* use adamw"):
        build_optimizer(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4)), SETTINGS)
    frozen = masked()
    frozen.model.layers.requires_grad_(False)
    with pytest.raises(ValueError, match=r"matrices in layers of MiniLMForMaskedLM \(0\) must be trainable"):
        build_optimizer(frozen, SETTINGS)


def run(folder: Path) -> dict[str, torch.Tensor]:
    """Train 40 steps with dropout, saving every 15, or go on with that; give the weights."""
    settings = {
        "optimizer.name": "muon",
        "model.preset": "bert",
        "model.overrides": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        "data.corpus": str(folder.parent / "stories.jsonl"),
        "data.sequence_length": 64,
        "data.cache_folder": str(folder.parent / "cache"),
        "training.batch_rows": 6,
        "training.log_every": 1,
        "training.budget": "40steps",
        "training.save_every": "15steps",
        "evaluation.every": "never",
        "evaluation.rows": 8,
        "output.folder": str(folder),
    }
    pretrain(load_recipe(None, [f"{name}={json.dumps(value)}" for name, value in settings.items()]))
    return load_file(folder / "model" / "model.safetensors")


def test_a_run_with_muon_learns_and_goes_on_to_the_bits_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"text": document.text}) for document in World(("es", "en")).documents(100)]
    (tmp_path / "stories.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole = run(tmp_path / "whole")
    metrics = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in metrics if "loss" in line]
    assert losses[-1] < losses[0] - 1.0
    move_weights = loop.move_weights

    calls = iter(range(1, 100))

    def break_off(training: Any, losses: Any, **arguments: Any) -> Any:
        if next(calls) == 21:
            raise KeyboardInterrupt
        return move_weights(training, losses, **arguments)

    monkeypatch.setattr(loop, "move_weights", break_off)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "halved")
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "halved" / "checkpoints").iterdir()] == ["checkpoint-15"]
    halved = run(tmp_path / "halved")
    assert halved.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(whole[name], halved[name])] == []
