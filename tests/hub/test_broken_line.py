"""A line that breaks at any of ten points of a push, and the same push again when it is mended."""

from pathlib import Path

import pytest
from hub_server import Repository, Request
from pushing import PUSHED, TOKEN, push_several, refusal
from writable_hub import WritableHub

POINTS = 10
WRITING = ("POST", "PUT")
WHOLE = "ana/unbroken"  # as long as ana/broken-0 and the like, as the lines of a card break by their length
pytestmark = pytest.mark.slow


class Line:
    """A line to a Hub that breaks at the n-th request which writes, and stays broken until the next push begins.

    The request itself is lost, or it reaches the Hub and its answer is lost.
    """

    def __init__(self, point: int, lost: str) -> None:
        self.point, self.lost = point, lost
        self.pushes = self.writes = 0

    def __call__(self, request: Request) -> str | None:
        if request.target == "/api/whoami-v2":  # the first request of a push, and in no other place
            self.pushes += 1
        if self.pushes > 1:
            return None
        was_broken = self.writes > self.point
        self.writes += request.method in WRITING
        if was_broken:
            return "request"
        return self.lost if self.writes > self.point else None


@pytest.fixture(scope="module")
def writes(account: WritableHub, trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Push over a good line; the number of requests that write."""
    command = ([str(trained_run), WHOLE, *PUSHED], TOKEN)
    (finished,) = push_several(account, tmp_path_factory.mktemp("push"), [command])
    assert finished.returncode == 0, finished.stderr[-3000:]
    return sum(request.method in WRITING for request in account.requests)


def contents(account: WritableHub, name: str) -> dict[str, dict[str, bytes]]:
    """The files of each branch, with the name of the repository left out of them."""
    repository: Repository = account.repositories["models", name]
    return {
        branch: {
            path: content.replace(name.split("/")[1].encode(), b"-")
            for path, content in repository.at(branch).files.items()
        }
        for branch in repository.branches
    }


@pytest.mark.parametrize(("number", "lost"), [(each, ("request", "answer")[each % 2]) for each in range(POINTS)])
def test_a_push_whose_line_broke_is_complete_when_it_runs_again_and_was_never_half_a_model(
    account: WritableHub, trained_run: Path, writes: int, tmp_path: Path, number: int, lost: str
) -> None:
    account.large_files.clear()
    line = account.loses = Line(number * (writes - 1) // (POINTS - 1), lost)
    name = f"ana/broken-{number}"
    command = ([str(trained_run), name, *PUSHED], TOKEN)
    broken, again = push_several(account, tmp_path, [command, command])
    account.loses = lambda request: None
    assert line.pushes == 2
    assert "the same command goes on where it stopped" in refusal(broken)
    assert again.returncode == 0, again.stderr[-3000:]
    expected = contents(account, WHOLE)
    assert contents(account, name) == expected
    sets_of_files = {frozenset(files) for files in expected.values()} | {frozenset({".gitattributes"})}
    commits = account.repositories["models", name].commits
    assert {frozenset(commit.files) for commit in commits} <= sets_of_files
    assert len(commits) == len(account.repositories["models", WHOLE].commits)
