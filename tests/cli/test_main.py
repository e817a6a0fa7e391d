"""The command itself: its version, and the systems that it knows."""

import importlib
import sys

import pytest

import hf_minilm
from hf_minilm import cli
from hf_minilm.cli.main import main


def test_the_version_is_the_package_s(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"hf-minilm {hf_minilm.__version__}\n"


def test_on_windows_the_command_says_in_one_line_where_it_works(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(
        SystemExit, match=r"^hf-minilm: the operating system \(Windows\) must be .*; start it in WSL\.$"
    ):
        importlib.reload(cli)
