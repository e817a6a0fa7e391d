"""The example of a position scheme of one's own: it trains, and tells the order that `none` cannot tell."""

import runpy
from pathlib import Path

import pytest

from hf_minilm.model.positions import POSITION_SCHEMES

SCRIPT = Path(__file__).parents[2] / "examples" / "add_a_position_scheme.py"


def test_the_scheme_learns_more_than_no_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POSITION_SCHEMES, "logarithmic", POSITION_SCHEMES["none"])
    names = runpy.run_path(str(SCRIPT))
    losses = {scheme: names["train"](scheme, steps=240) for scheme in ("none", "logarithmic")}
    assert losses["logarithmic"] < losses["none"] - 0.1
