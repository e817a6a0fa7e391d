"""The example of a position scheme of one's own: it trains, and tells the order that `none` cannot tell."""

import runpy
from pathlib import Path

import pytest
import torch

from hf_minilm import MiniLMConfig, MiniLMModel
from hf_minilm.model.positions import POSITION_SCHEMES

SCRIPT = Path(__file__).parents[2] / "examples" / "add_a_position_scheme.py"


def test_the_scheme_learns_more_than_no_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POSITION_SCHEMES, "logarithmic", POSITION_SCHEMES["none"])
    names = runpy.run_path(str(SCRIPT))
    losses = {scheme: names["train"](scheme, steps=240) for scheme in ("none", "logarithmic")}
    assert losses["logarithmic"] < losses["none"] - 0.1


def test_the_scheme_tells_the_order_and_begins_anew_in_every_sequence_of_a_packed_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(POSITION_SCHEMES, "logarithmic", POSITION_SCHEMES["none"])
    runpy.run_path(str(SCRIPT))
    torch.manual_seed(0)
    model = MiniLMModel(MiniLMConfig.preset("modern", "tiny", position_embedding="logarithmic")).eval()
    tokens = torch.tensor([[5, 9, 7, 11, 6]])
    swapped = tokens[:, [0, 2, 1, 3, 4]]
    first, second = (model(ids).last_hidden_state[:, 0] for ids in (tokens, swapped))
    assert (first - second).abs().max() > 1e-6
    packed = model(torch.cat((tokens, tokens), 1), position_ids=torch.arange(5).repeat(2)[None]).last_hidden_state
    torch.testing.assert_close(packed[:, 5:], packed[:, :5])
