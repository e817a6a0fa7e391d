"""What a figure was measured with, without a name of a machine or a folder of a person."""

import platform

import pytest
import torch

from hf_minilm.evaluation.provenance import (
    describe_command,
    describe_hardware,
    describe_versions,
    reduce_path,
    source_name,
)


@pytest.mark.parametrize(
    ("text", "reduced"),
    [
        ("/home/ana/clients/acme/letters.jsonl.gz", "letters.jsonl.gz"),
        ("~/letters", "letters"),
        ("../../acme/*.txt", "*.txt"),
        ("C:\\Users\\ana\\letters.txt", "letters.txt"),
        ("\\\\server\\share\\letters.txt", "letters.txt"),
        ("texts/letters.txt", "texts/letters.txt"),
        ("builtin:world", "builtin:world"),
        ("hub:owner/name:small@train", "hub:owner/name:small@train"),
        ("auto", "auto"),
    ],
)
def test_a_path_that_leads_somewhere_here_is_reduced_to_its_last_part(text, reduced):
    assert reduce_path(text) == reduced


@pytest.mark.parametrize(
    ("word", "described"),
    [
        ("../../ana/acme/model", "model"),
        ("runs/../../acme/model", "model"),
        ("pairs:../acme/zorro", "pairs:zorro"),
        ("validation:texts/../../acme/a=b.txt", "validation:a=b.txt"),
        ("--training-text=..\\acme\\a.txt", "--training-text=a.txt"),
        ("heldout:/home/ana/a=/b.txt", "heldout:b.txt"),
        ("heldout:C:\\Users\\ana\\a.txt", "heldout:C:a.txt"),
        ("validation:hub:owner/name:small@train", "validation:hub:owner/name:small@train"),
        ("pairs:texts/zorro/", "pairs:texts/zorro/"),
        ("..", ".."),
    ],
)
def test_a_command_keeps_no_folder_of_a_path_that_climbs_or_begins_at_the_root(word, described):
    assert describe_command(["evaluate", word]) in (f"evaluate {described}", f"evaluate '{described}'")


def test_a_command_keeps_no_absolute_folder():
    words = ["evaluate", "/home/ana/model", "pairs:/home/ana/zorro", "heldout:texts/a.txt", "--x=~/b.txt", "hub:a/b"]
    assert describe_command(words) == "evaluate model pairs:zorro heldout:texts/a.txt --x=b.txt hub:a/b"
    assert describe_command(["a b"]) == "'a b'"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/home/ana/zorro", "zorro"),
        ("texts/", "texts"),
        ("a/pairs/*.txt", "pairs/*.txt"),
        ("*.txt", "*.txt"),
        ("hub:a/b@test", "hub:a/b@test"),
        ("builtin:world", "builtin:world"),
        ("es,en", "es,en"),
    ],
)
def test_a_source_is_called_by_its_last_part(source, name):
    assert source_name(source) == name


def test_the_home_folder_is_not_named_as_it_is_called_by_its_user(monkeypatch, tmp_path):
    home = tmp_path / "ana"
    monkeypatch.setenv("HOME", str(home))
    assert source_name(f"{home}/*.txt") == "*.txt"
    assert source_name(f"{home}/pairs/*.txt") == "pairs/*.txt"


def test_hardware_and_versions_say_nothing_of_the_host():
    described = str(describe_hardware(torch.device("cpu"))) + str(describe_versions())
    assert torch.__version__ in described
    assert "'device': 'cpu'" in described
    assert platform.node() not in described or not platform.node()
