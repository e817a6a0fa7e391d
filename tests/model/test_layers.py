import copy
import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hf_minilm import MiniLMForCausalLM, MiniLMModel
from hf_minilm.model.layers import FeedForward, Layer, build_norm


def test_the_plain_feed_forward_is_its_formula(make_config):
    block = FeedForward(make_config(feed_forward="plain", hidden_act="relu", feed_forward_bias=True))
    features = torch.randn(2, 5, 24)
    inner = (features @ block.up.weight.T + block.up.bias).clamp(min=0)
    torch.testing.assert_close(block(features), inner @ block.down.weight.T + block.down.bias)


def test_the_gated_feed_forward_is_its_formula(make_config):
    block = FeedForward(make_config(feed_forward="gated", hidden_act="silu"))
    features = torch.randn(2, 5, 24)
    gate = features @ block.gate.weight.T
    inner = gate * torch.sigmoid(gate) * (features @ block.up.weight.T)
    torch.testing.assert_close(block(features), inner @ block.down.weight.T)


def test_norms_are_their_formulas(make_config):
    features = torch.randn(3, 24) * 4 + 1
    centred = features - features.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(build_norm(make_config())(features), expected)
    expected = features / (features.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(build_norm(make_config(norm="rms_norm"))(features), expected)


def test_post_norm_layers_give_normalised_outputs_and_pre_norm_layers_keep_the_residual(make_config):
    features = torch.randn(2, 5, 24)
    outputs = Layer(make_config(norm_placement="post", position_embedding="none"), 0)(features)
    torch.testing.assert_close(outputs.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
    layer = Layer(make_config(norm_placement="pre", position_embedding="none"), 0)
    nn.init.zeros_(layer.attention.output.weight)
    nn.init.zeros_(layer.feed_forward.down.weight)
    assert torch.equal(layer(features), features)


def test_only_the_first_layer_goes_without_a_norm_before_attention(make_model, draw_tokens):
    model = make_model(MiniLMModel, embedding_norm=True, first_attention_norm=False)
    assert [type(layer.attention_norm) for layer in model.layers] == [nn.Identity, nn.LayerNorm]
    assert "layers.0.attention_norm.weight" not in model.state_dict()
    same = make_model(MiniLMModel, embedding_norm=True)
    same.load_state_dict(model.state_dict(), strict=False)
    same.layers[0].attention_norm = nn.Identity()
    tokens = draw_tokens(2, 5)
    assert torch.equal(model(tokens).last_hidden_state, same(tokens).last_hidden_state)


def test_projections_into_the_residual_start_smaller_by_the_root_of_twice_the_layers(make_model):
    sizes = {"hidden_size": 120, "intermediate_size": 200, "num_hidden_layers": 8}
    model = make_model(MiniLMModel, **sizes)
    for layer in model.layers:
        for weight in (layer.attention.output.weight, layer.feed_forward.down.weight):
            assert math.isclose(weight.std().item(), 0.3 / 4, rel_tol=0.05)
        assert math.isclose(layer.feed_forward.up.weight.std().item(), 0.3, rel_tol=0.05)
    whole = make_model(MiniLMModel, scale_residual_initializer=False, **sizes)
    assert math.isclose(whole.layers[0].feed_forward.down.weight.std().item(), 0.3, rel_tol=0.05)


def test_projections_that_a_checkpoint_lacks_start_smaller_too_where_they_end_in_the_residual(make_model, tmp_path):
    # Opened, a model is built without memory, and what the checkpoint lacks is drawn later.
    sizes = {"hidden_size": 120, "intermediate_size": 200, "num_hidden_layers": 8}
    model = copy.deepcopy(make_model(MiniLMModel, **sizes))
    model.save_pretrained(tmp_path)
    save_file({"norm.weight": model.norm.weight.detach()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    opened = MiniLMModel.from_pretrained(tmp_path)
    for layer in (opened.layers[0], opened.layers[7]):
        for weight in (layer.attention.output.weight, layer.feed_forward.down.weight):
            assert math.isclose(weight.std().item(), 0.3 / 4, rel_tol=0.05)
        assert math.isclose(layer.attention.query.weight.std().item(), 0.3, rel_tol=0.05)


def test_every_projection_is_exactly_a_linear_layer(make_model):
    # What quantises replaces nothing else, and says nothing of what it leaves.
    model = make_model(MiniLMForCausalLM, feed_forward="gated", causal_transform=True)
    projections = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert len(projections) == 2 * 7 + 1 + 1
    assert {type(module) for module in projections} == {nn.Linear}


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantisation_to_eight_bits_takes_every_projection_and_stays_near(make_model, draw_tokens):
    model, tokens = make_model(MiniLMForCausalLM, attention="sdpa"), draw_tokens(2, 9)
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    assert not [name for name, module in quantised.named_modules() if type(module) is nn.Linear]
    assert not isinstance(quantised.model.layers[0].attention.output, nn.Linear)
    expected, found = model(tokens).logits, quantised(tokens).logits
    assert 0 < (expected - found).abs().max() < 0.1 * expected.abs().max()


def test_no_token_types_mean_type_zero_and_types_change_the_outputs(make_model, draw_tokens):
    model = make_model(MiniLMModel)
    tokens = draw_tokens(2, 5)
    zeros = torch.zeros_like(tokens)
    assert torch.equal(model(tokens).last_hidden_state, model(tokens, token_type_ids=zeros).last_hidden_state)
    ones = model(tokens, token_type_ids=zeros + 1).last_hidden_state
    assert not torch.allclose(model(tokens).last_hidden_state, ones, atol=1e-2)


def test_without_a_type_table_token_types_are_not_looked_at(make_model, draw_tokens):
    model = make_model(MiniLMModel, type_vocab_size=0)
    tokens = draw_tokens(2, 5)
    ones = model(tokens, token_type_ids=torch.ones_like(tokens)).last_hidden_state
    assert torch.equal(model(tokens).last_hidden_state, ones)
