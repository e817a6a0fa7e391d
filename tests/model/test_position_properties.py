"""What each position scheme promises, over random shapes, offsets and packings."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_minilm import MiniLMConfig, MiniLMModel
from hf_minilm.model.positions import POSITION_SCHEMES, build_positions, rotate

RELATIVE = [scheme for scheme in POSITION_SCHEMES if scheme not in ("learned", "sinusoidal")]
_SETTINGS = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

architectures = st.fixed_dictionaries(
    {
        "is_causal": st.booleans(),
        "num_attention_heads": st.sampled_from([1, 2, 3, 6]),
        "num_hidden_layers": st.integers(1, 2),
        "norm_placement": st.sampled_from(["pre", "post"]),
    }
)
packings = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=3)


def build(scheme: str, fields: dict[str, Any]) -> MiniLMModel:
    torch.manual_seed(0)
    config = MiniLMConfig(
        vocab_size=53,
        hidden_size=24,
        intermediate_size=31,
        initializer_range=0.3,
        max_position_embeddings=160,
        position_embedding=scheme,
        **fields,
    )
    return MiniLMModel._from_config(config, attn_implementation="sdpa").eval()


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(1, 53, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scheme", POSITION_SCHEMES)
@_SETTINGS
@given(fields=architectures, rows=packings, seed=st.integers(0, 2**31))
@torch.no_grad()
def test_however_sequences_are_packed_each_is_read_as_if_it_stood_alone(scheme, fields, rows, seed):
    model = build(scheme, fields)
    length = max(map(sum, rows))
    tokens = draw(len(rows), length, seed=seed)
    filled = [[*row, length - sum(row)] for row in rows]
    positions = torch.tensor([[place for count in row for place in range(count)] for row in filled])
    packed = model(tokens, position_ids=positions, use_cache=False).last_hidden_state
    for row, counts in enumerate(filled):
        parts = tokens[row].split(counts)
        alone = [model(part[None], use_cache=False).last_hidden_state[0] for part in parts if len(part)]
        torch.testing.assert_close(packed[row], torch.cat(alone), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("scheme", RELATIVE)
@_SETTINGS
@given(fields=architectures, length=st.integers(2, 20), offset=st.integers(1, 120), seed=st.integers(0, 2**31))
@torch.no_grad()
def test_relative_schemes_do_not_see_where_a_text_begins(scheme, fields, length, offset, seed):
    model, tokens = build(scheme, fields), draw(2, length, seed=seed)
    places = torch.arange(length)[None]
    here, there = (
        model(tokens, position_ids=ids, use_cache=False).last_hidden_state for ids in (places, places + offset)
    )
    torch.testing.assert_close(there, here, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("scheme", POSITION_SCHEMES)
@_SETTINGS
@given(heads=st.integers(1, 7), positions=st.lists(st.integers(0, 150), min_size=1, max_size=9), rows=st.integers(1, 3))
@torch.no_grad()
def test_what_a_scheme_gives_has_the_shape_and_type_that_attention_asks_for(scheme, heads, positions, rows):
    torch.manual_seed(0)
    fields = {"hidden_size": 8 * heads, "num_attention_heads": heads, "max_position_embeddings": 160}
    places = torch.tensor([positions] * rows)
    built = build_positions(MiniLMConfig(position_embedding=scheme, **fields))
    added = built.added_to_embeddings(places)
    assert added is None or added.shape == (rows, len(positions), 8 * heads)
    rotation = built.rotation(places)
    if rotation is not None:
        features = torch.randn(rows, heads, len(positions), 8)
        turned = rotate(features, rotation)
        torch.testing.assert_close(turned.norm(dim=-1), features.norm(dim=-1))
    bias = built.added_to_scores(places, places[:, :1])
    assert bias is None or bias.shape == (rows, heads, len(positions), 1)
    assert sum(given is not None for given in (added, rotation, bias)) == (scheme != "none")
