"""The example that measures what an import costs beside loading the same model in transformers."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

SCRIPT = Path(__file__).parents[2] / "examples" / "measure_import.py"


def test_memory_and_time_are_those_of_the_process_that_took_them():
    # In a process without torch: a child's memory counts from that of the process that started it.
    script = (
        "import json, runpy, sys\n"
        f"cost_of = runpy.run_path({str(SCRIPT)!r})['cost_of']\n"
        "idle = cost_of([sys.executable, '-c', ''])\n"
        "busy = cost_of([sys.executable, '-c', 'memory = bytearray(300 << 20); sum(range(10_000_000))'])\n"
        "print(json.dumps([idle, busy]))\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, stdin=subprocess.DEVNULL)
    idle, busy = json.loads(said.stdout)
    assert 290 < busy[2] - idle[2] < 320
    assert busy[0] > idle[0]


def test_a_process_that_fails_is_said_with_its_own_words():
    cost_of = runpy.run_path(str(SCRIPT))["cost_of"]
    with pytest.raises(RuntimeError, match="nothing there"):
        cost_of([sys.executable, "-c", "raise SystemExit('nothing there')"])


@pytest.mark.slow
def test_the_table_has_a_line_for_each_cost_with_the_ratio_of_its_medians(run_script, tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    BertForMaskedLM(BertConfig(**sizes)).save_pretrained(tmp_path)
    code, printed, _ = run_script(tmp_path, "--runs", 1)
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines()[2:]]
    assert code == 0
    assert [line[1] for line in lines] == ["processor seconds", "seconds", "memory, MiB"]
    for _, _, *medians, to_loaded, to_run in lines:
        loaded, run, imported = (float(cell.split()[0]) for cell in medians)
        assert float(to_loaded) == pytest.approx(imported / loaded, abs=0.02)
        assert float(to_run) == pytest.approx(imported / run, abs=0.02)
