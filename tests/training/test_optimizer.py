import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from hf_minilm.training.optimizer import (
    SCALARS_FILE,
    TENSORS_FILE,
    build_optimizer,
    load_optimizer_state,
    parameter_groups,
    save_optimizer_state,
    set_learning_rate,
)
from hf_minilm.training.recipe import OptimizerSettings

SETTINGS = OptimizerSettings(name="adamw", learning_rate=3e-3, weight_decay=0.1)
MUON = OptimizerSettings(name="muon", learning_rate=3e-3, weight_decay=0.1)


class TinyTiedModel(nn.Module):
    """Has each kind of parameter: embedding, tied output, norm, bias, matrix, one frozen and one never used."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.tokens = nn.Embedding(11, 6)
        self.inner = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.unused = nn.Linear(5, 3)
        self.frozen = nn.Linear(2, 2, bias=False).requires_grad_(False)
        self.output = nn.Linear(6, 11)
        self.output.weight = self.tokens.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.output(self.norm(torch.tanh(self.inner(self.tokens(ids)))))


def bert(seed: int) -> BertForMaskedLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    return BertForMaskedLM(BertConfig(vocab_size=11, max_position_embeddings=9, **sizes)).eval()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        ids = torch.randint(11, (3, 7), generator=torch.Generator().manual_seed(step))
        output = model(ids)
        logits = output if isinstance(output, torch.Tensor) else output.logits
        nn.functional.cross_entropy(logits.flatten(0, 1), ids.roll(1, dims=1).flatten()).backward()
        set_learning_rate(optimizer, 3e-3 / (1 + step))
        optimizer.step()
        optimizer.zero_grad()


def group_names(model: nn.Module) -> dict[str, list[str]]:
    return {group["name"]: [name for name, _ in group["params"]] for group in parameter_groups(model, 0.1)}


def test_only_matrices_that_are_not_embeddings_decay_and_a_tied_one_stands_once() -> None:
    assert group_names(TinyTiedModel(0)) == {
        "decay": ["inner.weight", "unused.weight"],
        "no_decay": ["inner.bias", "norm.bias", "norm.weight", "output.bias", "tokens.weight", "unused.bias"],
    }


def test_an_output_tied_to_an_embedding_does_not_decay_whichever_module_comes_first() -> None:
    model = nn.ModuleDict({"a_head": nn.Linear(4, 9, bias=False), "embedding": nn.Embedding(9, 4)})
    model["a_head"].weight = model["embedding"].weight
    assert group_names(model) == {"no_decay": ["a_head.weight"]}


def test_the_groups_of_a_transformers_model_hold_each_trainable_parameter_once_in_the_order_of_names() -> None:
    model = bert(0)
    names = group_names(model)
    assert sorted(names["decay"] + names["no_decay"]) == sorted(name for name, _ in model.named_parameters())
    assert all(group == sorted(group) for group in names.values())
    assert not [name for name in names["decay"] if "embeddings" in name or "LayerNorm" in name or "bias" in name]


def test_a_model_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match=r"parameters \(0\) must be trainable"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1)


def test_the_optimizer_is_fused_adamw_with_the_recipes_settings() -> None:
    optimizer = build_optimizer(TinyTiedModel(0), SETTINGS)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"], group["fused"]) == (3e-3, (0.9, 0.98), 1e-8, True)


def test_the_fused_step_is_the_step_of_the_papers_formula() -> None:
    model = TinyTiedModel(1)
    optimizer = build_optimizer(model, SETTINGS)
    expected = {name: p.detach().double() for name, p in model.named_parameters() if "unused" not in name}
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in expected.items()}
    decayed = group_names(model)["decay"]
    for step in range(1, 4):
        model(torch.randint(11, (2, 5))).square().mean().backward()
        for name, parameter in model.named_parameters():
            if name in expected and parameter.grad is not None:
                gradient = parameter.grad.double()
                first = 0.9 * moments[name][0] + 0.1 * gradient
                second = 0.98 * moments[name][1] + 0.02 * gradient**2
                moments[name] = (first, second)
                kept = expected[name] * (1 - 3e-3 * (0.1 if name in decayed else 0.0))
                update = (first / (1 - 0.9**step)) / ((second / (1 - 0.98**step)).sqrt() + 1e-8)
                expected[name] = kept - 3e-3 * update
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.detach().double(), expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("build", "settings"), [(TinyTiedModel, SETTINGS), (bert, SETTINGS), (bert, MUON)])
def test_training_that_goes_on_from_a_saved_state_gives_the_same_bits_as_training_without_a_break(
    build: type[TinyTiedModel], settings: OptimizerSettings, tmp_path: Path
) -> None:
    whole = build(0)
    whole_optimizer = build_optimizer(whole, settings)
    train(whole, whole_optimizer, range(7))
    save_optimizer_state(tmp_path, whole_optimizer)
    resumed = build(1)
    resumed.load_state_dict(whole.state_dict())
    resumed_optimizer = build_optimizer(resumed, settings)
    load_optimizer_state(tmp_path, resumed_optimizer)
    assert_same_state(whole, whole_optimizer, resumed, resumed_optimizer)
    train(whole, whole_optimizer, range(7, 12))
    train(resumed, resumed_optimizer, range(7, 12))
    assert_same_state(whole, whole_optimizer, resumed, resumed_optimizer)


def assert_same_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, other: nn.Module, other_optimizer: torch.optim.Optimizer
) -> None:
    for (name, parameter), (_, twin) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(parameter, twin), name
        state, twin_state = optimizer.state.get(parameter, {}), other_optimizer.state.get(twin, {})
        assert state.keys() == twin_state.keys(), name
        for key, value in state.items():
            assert torch.equal(value, twin_state[key]), (name, key)
            assert (value.dtype, value.shape) == (twin_state[key].dtype, twin_state[key].shape)


def test_loading_forgets_what_the_optimizer_had_before_and_keeps_its_settings(tmp_path: Path) -> None:
    model = TinyTiedModel(0)
    save_optimizer_state(tmp_path, build_optimizer(model, SETTINGS))
    other = build_optimizer(model, OptimizerSettings(name="adamw", weight_decay=0.3))
    train(model, other, range(2))
    load_optimizer_state(tmp_path, other)
    assert not other.state
    assert other.param_groups[0]["weight_decay"] == 0.3


def test_the_state_is_stored_by_parameter_name_in_safetensors_and_json_only(tmp_path: Path) -> None:
    model = TinyTiedModel(0)
    optimizer = build_optimizer(model, SETTINGS)
    train(model, optimizer, range(3))
    save_optimizer_state(tmp_path, optimizer)
    assert {path.name for path in tmp_path.iterdir()} == {TENSORS_FILE, SCALARS_FILE}
    tensors = load_file(tmp_path / TENSORS_FILE)
    assert torch.equal(tensors["exp_avg_sq/inner.weight"], optimizer.state[model.inner.weight]["exp_avg_sq"])
    content = json.loads((tmp_path / SCALARS_FILE).read_text())
    assert content["scalars"]["inner.weight"] == {"step": 3.0}
    assert "unused.weight" not in content["scalars"]


def test_the_state_of_muon_is_one_momentum_a_matrix_and_adamws_for_all_else(tmp_path: Path) -> None:
    model = bert(0)
    optimizer = build_optimizer(model, MUON)
    train(model, optimizer, range(3))
    save_optimizer_state(tmp_path, optimizer)
    matrix, bias = (f"bert.encoder.layer.1.output.dense.{name}" for name in ("weight", "bias"))
    tensors = load_file(tmp_path / TENSORS_FILE)
    assert [key for key in tensors if key.endswith(f"/{matrix}")] == [f"momentum_buffer/{matrix}"]
    assert sorted(key for key in tensors if key.endswith(f"/{bias}")) == [f"exp_avg/{bias}", f"exp_avg_sq/{bias}"]
    scalars = json.loads((tmp_path / SCALARS_FILE).read_text())["scalars"]
    assert scalars[bias] == {"step": 3.0}
    assert matrix not in scalars


def test_a_state_of_adamw_is_refused_by_muon_and_the_other_way_round(tmp_path: Path) -> None:
    model = bert(0)
    for saved, other, line in (
        (SETTINGS, MUON, r"optimizer \(MuonWithAdamW\) must be that of .* \(AdamW\); keep optimizer.name\.$"),
        (MUON, SETTINGS, r"optimizer \(AdamW\) must be that of .* \(MuonWithAdamW\); keep optimizer.name\.$"),
    ):
        save_optimizer_state(tmp_path, build_optimizer(model, saved))
        with pytest.raises(ValueError, match=line):
            load_optimizer_state(tmp_path, build_optimizer(model, other))


def test_the_loaded_state_does_not_keep_the_file(tmp_path: Path) -> None:
    model = TinyTiedModel(0)
    optimizer = build_optimizer(model, SETTINGS)
    train(model, optimizer, range(3))
    save_optimizer_state(tmp_path, optimizer)
    load_optimizer_state(tmp_path, optimizer)
    before = optimizer.state[model.inner.weight]["exp_avg"].clone()
    (tmp_path / TENSORS_FILE).write_bytes(bytes((tmp_path / TENSORS_FILE).stat().st_size))
    assert torch.equal(optimizer.state[model.inner.weight]["exp_avg"], before)


def test_a_state_of_another_model_or_another_optimizer_is_refused(tmp_path: Path) -> None:
    model = TinyTiedModel(0)
    optimizer = build_optimizer(model, SETTINGS)
    train(model, optimizer, range(1))
    save_optimizer_state(tmp_path, optimizer)
    with pytest.raises(ValueError, match=r"must be that of this model; \d+ parameters differ"):
        load_optimizer_state(tmp_path, build_optimizer(bert(0), SETTINGS))
    wider = TinyTiedModel(0)
    wider.inner = nn.Linear(6, 7)
    with pytest.raises(ValueError, match=r"inner.bias \(\(6,\)\) must have the parameter's shape \(\(7,\)\)"):
        load_optimizer_state(tmp_path, build_optimizer(wider, SETTINGS))
    with pytest.raises(ValueError, match=r"optimizer \(SGD\) must be that of .* \(AdamW\)"):
        load_optimizer_state(tmp_path, torch.optim.SGD(parameter_groups(model, 0.1)))
    with pytest.raises(ValueError, match="must know its parameters' names"):
        save_optimizer_state(tmp_path, torch.optim.SGD(model.parameters()))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"optimizer": "AdamW"}', "[" * 100_000])
def test_a_damaged_state_is_refused_with_one_line(text: str, tmp_path: Path) -> None:
    optimizer = build_optimizer(TinyTiedModel(0), SETTINGS)
    save_optimizer_state(tmp_path, optimizer)
    (tmp_path / SCALARS_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"optimizer state \(.*\) must") as caught:
        load_optimizer_state(tmp_path, optimizer)
    assert "\n" not in str(caught.value)
