"""R14: whoever asks for two processes gets two, or the line that works. R20: launches end with exit code 0."""

import re
from pathlib import Path

import pytest
from jobs import Launched, Workplace, free_port
from tries import MARKS, Row

pytestmark = MARKS

MULTI_CPU = """compute_environment: LOCAL_MACHINE
distributed_type: MULTI_CPU
machine_rank: 0
main_training_function: main
mixed_precision: 'no'
num_machines: 1
num_processes: 2
use_cpu: true
"""
ON_CPU = {"ACCELERATE_USE_CPU": "true"}
TWO = {"training.processes": "2"}
# The launcher and its options, what the environment adds, and what the recipe adds.
LINES: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("torchrun --standalone --nproc_per_node 2", {}, {}),
    ("torchrun --standalone --nproc_per_node 2", ON_CPU, TWO),
    ("torchrun --nnodes 1 --nproc_per_node 2 --master_port PORT", {}, {}),
    ("python -m torch.distributed.run --standalone --nproc_per_node 2", {}, {}),
    ("accelerate launch --multi_gpu --num_processes 2 --main_process_port PORT", {}, {}),
    ("accelerate launch --multi_gpu --num_processes 2 --main_process_port PORT", ON_CPU, TWO),
    ("accelerate launch --cpu --num_processes 2", {}, {}),
    ("accelerate launch --cpu --num_processes 2", {}, TWO),
    ("accelerate launch --config_file CONFIG", {}, {}),
    ("accelerate launch --num_processes 2 --main_process_port PORT", {}, {}),
]
SHORT = {"training.budget": "2steps"}


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "multi_cpu.yaml"
    path.write_text(MULTI_CPU, encoding="utf-8")
    return path


def test_two_processes_that_were_asked_for_are_two_or_the_line_that_works_is_said(
    workplace: Workplace, config_file: Path
) -> None:
    with Row("R14", tries=len(LINES), few=len(LINES)) as row:
        for line, variables, settings in LINES:
            with row.attempt(f"{line} {variables or ''} {settings or ''}"):
                launcher = line.replace("PORT", f"{free_port()}").replace("CONFIG", str(config_file)).split()
                folder, environment = workplace.new_folder("launched"), {**workplace.environment, **variables}
                launched = Launched(launcher, folder, {**SHORT, **settings}, environment)
                code = launched.wait()
                running = re.findall(r"processes: (\d+)", launched.text)
                is_told = "torchrun --standalone --nproc_per_node 2" in launched.text
                is_right = (code == 0 and running == ["2"]) or (code != 0 and is_told)
                assert is_right, f"code {code}, processes {running}\n{launched.text[-1500:]}"


def test_a_launch_of_two_ranks_ends_with_exit_code_0(workplace: Workplace) -> None:
    with Row("R20", tries=200, few=12) as row:
        for number in range(row.tries):
            if row.is_lost:
                break
            with row.attempt(f"launch {number}"):
                workplace.finish(workplace.new_folder("launch"), SHORT, processes=2)
