"""R7: whatever is damaged in the newest checkpoint is found before a step is made, and the one before is taken."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs import TINY, Workplace, logged, weights
from tries import MARKS, Row

from hf_minilm.training.checkpoint import checkpoint_path, find_damage, newest_valid_checkpoint

pytestmark = MARKS

LAST, BEFORE = 12, 8
SETTINGS = {**TINY, "training.budget": f"{LAST}steps", "training.save_every": "4steps"}


def flip_a_bit(path: Path, older: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def cut_off(path: Path, older: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


def lose(path: Path, older: Path, draw: random.Random) -> None:
    path.unlink()


def swap(path: Path, older: Path, draw: random.Random) -> None:
    """Put the file of the same name of the checkpoint before in its place, or where both are equal another's."""
    twin = older / path.name
    others = [twin] if twin.read_bytes() != path.read_bytes() else [each for each in older.iterdir() if each != twin]
    shutil.copy(draw.choice(sorted(others)), path)


DAMAGES: dict[str, tuple[Callable[[Path, Path, random.Random], None], int]] = {
    "a flipped bit": (flip_a_bit, 1_000),
    "a file cut off": (cut_off, 100),
    "a missing file": (lose, 50),
    "a swapped file": (swap, 50),
}


@pytest.fixture
def whole(workplace: Workplace) -> Path:
    """A finished run with two checkpoints."""
    return workplace.finish(workplace.new_folder("whole"), SETTINGS)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_found_and_the_one_before_is_taken(whole: Path, kind: str) -> None:
    damage, tries = DAMAGES[kind]
    newest, older = (checkpoint_path(whole / "checkpoints", step) for step in (LAST, BEFORE))
    files = sorted(newest.iterdir())
    with Row("R7", kind, tries=tries, few=tries // 10) as row:
        for _ in range(row.tries):
            path = row.random.choice(files)
            content = path.read_bytes()
            with row.attempt(path.name):
                damage(path, older, row.random)
                assert newest_valid_checkpoint(newest.parent) == older
            path.write_bytes(content)
    assert find_damage(newest) is None


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    workplace: Workplace, whole: Path, kind: str
) -> None:
    damage, _ = DAMAGES[kind]
    with Row("R7", f"{kind}, and the run goes on", tries=6, few=1) as row:
        for _ in range(row.tries):
            folder = workplace.new_folder("damaged")
            shutil.copytree(whole, folder)
            (folder / "report.txt").unlink()
            newest, older = (checkpoint_path(folder / "checkpoints", step) for step in (LAST, BEFORE))
            path = row.random.choice(sorted(newest.iterdir()))
            with row.attempt(path.name):
                damage(path, older, row.random)
                job = workplace.start(folder, SETTINGS)
                assert job.wait() == [0], job.text
                assert f"{newest.name}) is damaged and skipped: {path.name}" in job.text
                assert f"resuming after step {BEFORE}" in job.text
                assert logged(folder) == logged(whole)
                assert weights(folder) == weights(whole)
