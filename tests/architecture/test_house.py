"""Rules of the house that no other tool enforces."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hf_minilm"
FILES = sorted(PACKAGE.rglob("*.py"))
MODEL_FILES = sorted((PACKAGE / "model").glob("*.py"))
MAY_TRAVEL = {"torch", "transformers", "huggingface_hub", *sys.stdlib_module_names}
MAY_BE_MISSING = {"triton"}
# What transformers searches for in the text of a file to decide which siblings to copy.
COPIED_IMPORT = re.compile(r"^\s*from\s+\.(\S+)\s+import", re.MULTILINE)
COPIED_PLAIN_IMPORT = re.compile(r"^\s*import\s+\.(\S+)\s*$", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def lines_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_is_longer_than_800_lines_and_no_function_than_60_besides_its_docstring(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 800
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {node.name: lines_without_docstring(node) for node in functions if lines_without_docstring(node) > 60} == {}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_or_folder_is_named_for_what_has_no_name(path):
    names = set(path.relative_to(PACKAGE).with_suffix("").parts)
    assert names.isdisjoint({"utils", "util", "helpers", "helper", "common", "misc", "tools"})


@pytest.mark.parametrize("path", MODEL_FILES, ids=name_of)
def test_a_model_file_imports_only_what_is_there_wherever_it_travels(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attempts = [node for node in ast.walk(tree) if isinstance(node, ast.Try)]
    optional = [node for attempt in attempts if attempt.handlers[0].type.id == "ImportError" for node in attempt.body]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            allowed = MAY_TRAVEL | (MAY_BE_MISSING if node in optional else set())
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
            assert len(node.names) == 1, "two imports on a line"
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] in MAY_TRAVEL
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1, "only siblings travel"
            assert node.module is not None, "`from . import name` is not copied"
            assert "." not in node.module, "only flat siblings travel"
            assert (path.parent / f"{node.module}.py").exists()
            assert node.col_offset == 0, "a sibling is imported at the top of the file"


@pytest.mark.parametrize("path", MODEL_FILES, ids=name_of)
def test_the_search_for_siblings_finds_the_relative_imports_and_nothing_else(path):
    text = path.read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.level]
    assert sorted(COPIED_IMPORT.findall(text)) == sorted(node.module for node in imports)
    assert COPIED_PLAIN_IMPORT.findall(text) == []


@pytest.fixture(scope="module")
def imported_by_the_package():
    """Names of the modules that `import hf_minilm` adds to those of transformers' own models."""
    script = (
        "import sys, transformers\n"
        "transformers.AutoModel, transformers.AutoModelForCausalLM, transformers.PreTrainedModel\n"
        "before = set(sys.modules)\n"
        "import hf_minilm\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    return finished.stdout.split()


def test_importing_the_package_imports_nothing_heavy_that_transformers_does_not(imported_by_the_package):
    heavy = {"datasets", "accelerate", "evaluate", "matplotlib", "pyarrow", "pandas", "tqdm", "yaml", "sklearn"}
    assert "hf_minilm" in imported_by_the_package
    assert heavy.isdisjoint(name.split(".")[0] for name in imported_by_the_package)


def test_importing_the_package_imports_no_other_part_of_it_than_the_model(imported_by_the_package):
    parts = {name.split(".")[1] for name in imported_by_the_package if name.startswith("hf_minilm.")}
    assert parts == {"model"}
