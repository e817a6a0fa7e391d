"""R8: a disk that fills up in a save: a clear message, the last checkpoint as it was, and the same bits in the end."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import CORPUS_FILE, Fault, Workplace, assert_checkpoints_are_whole, kill_if_alive, weights
from tries import MARKS, Row

pytestmark = MARKS

SETTINGS = {"training.budget": "12steps", "training.save_every": "4steps"}
DISK_BYTES = 64 * 2**20
# Before each of the file operations of a save, the second save's among them; the disk fills up before one.
OPERATIONS = 40


@pytest.fixture
def disk(workplace: Workplace) -> Iterator[Path]:
    """A small file system of its own with the corpus."""
    folder = workplace.folder / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system of one's own needs the right to mount")
    shutil.copy(workplace.folder / CORPUS_FILE, folder)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_fills_up_in_a_save_leaves_the_last_checkpoint_and_a_message(
    workplace: Workplace, disk: Path, processes: int
) -> None:
    with Row("R8", f"{processes} processes", tries=20, few=4) as row:
        whole = weights(workplace.finish(workplace.new_folder("whole"), SETTINGS, processes=processes))
        for number in range(row.tries):
            operation = 1 + number * OPERATIONS // row.tries
            with row.attempt(f"full before file operation {operation} of the second save"):
                folder = disk / f"run-{number}"
                text = fill_up_in_a_save(workplace, folder, operation, processes=processes)
                said = f"disk of {folder / 'checkpoints'} (", "bytes free) must have room for a checkpoint (about"
                assert all(part in text for part in said), text
                assert assert_checkpoints_are_whole(folder) == [4]
                workplace.finish(folder, SETTINGS, processes=processes)
                assert weights(folder) == whole
                shutil.rmtree(folder)


def fill_up_in_a_save(workplace: Workplace, folder: Path, operation: int, *, processes: int) -> str:
    """Start a run on a disk that fills up before a file operation of its second save; gives what it printed."""
    fault = Fault(0, at="file operation of the second save", count=operation, do="SIGSTOP")
    job = workplace.start(folder, SETTINGS, processes=processes, faults=[fault])
    job.wait_for_fault()
    ballast = folder.parent / "ballast"
    fill(ballast)
    kill_if_alive(job.ranks[0].pid, signal.SIGCONT)
    codes = job.wait()
    ballast.unlink()
    assert codes[0] == 2, f"exit codes {codes}\n{job.text}"
    assert all(code > 0 for code in codes), f"exit codes {codes}\n{job.text}"
    return job.text


def fill(ballast: Path) -> None:
    """Write until there is no byte left."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return
