"""S7: corpora that nobody would write by intent, on one rank and on two: the same rows and counts, or one line."""

import pytest
from corpora import READ, REFUSED
from jobs import STILL, Job, Workplace, logged
from tries import MARKS, Row

pytestmark = MARKS

SETTINGS = {**STILL, "training.budget": "2steps", "tokenizer.vocab_size": "auto"}
COUNTS = ("skipped: ", "changed: ", "left out ")
FEW = 4


def start(workplace: Workplace, name: str, content: bytes, settings: dict[str, str], *, processes: int) -> Job:
    """Start a run on a corpus, with a cache of its own."""
    folder = workplace.new_folder("hostile")
    corpus = folder.with_name(f"{folder.name}-corpus") / name
    corpus.parent.mkdir()
    corpus.write_bytes(content)
    places = {"data.corpus": str(corpus), "data.cache_folder": str(corpus.parent / "cache")}
    return workplace.start(folder, {**SETTINGS, **settings, **places}, processes=processes)


def said(job: Job, rank: int, *beginnings: str) -> list[str]:
    lines = job.ranks[rank].output.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.startswith(beginnings)]


def test_two_ranks_read_the_rows_and_count_the_changes_of_one(workplace: Workplace) -> None:
    with Row("S7", "read", tries=len(READ), few=FEW) as row:
        for kind in row.random.sample(list(READ), row.tries):
            name, content, replaces, counted = READ[kind]
            settings = {"data.encoding_errors": "replace"} if replaces else {}
            with row.attempt(kind):
                jobs = [start(workplace, name, content, settings, processes=processes) for processes in (1, 2)]
                assert [job.wait() for job in jobs] == [[0], [0, 0]], "\n".join(job.text for job in jobs)
                counts = [said(job, 0, *COUNTS) for job in jobs]
                assert counts[0] == counts[1]
                assert all(any(what in line for line in counts[0]) for what in counted), counts[0]
                assert said(jobs[1], 1, *COUNTS) == []
                losses = [[line["loss"] for line in logged(job.folder) if "loss" in line] for job in jobs]
                assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("processes", [1, 2])
def test_every_rank_ends_where_a_corpus_is_refused(workplace: Workplace, processes: int) -> None:
    with Row("S7", f"refused, {processes} processes", tries=len(REFUSED), few=FEW) as row:
        for kind in row.random.sample(list(REFUSED), row.tries):
            name, content, _ = REFUSED[kind]
            with row.attempt(kind):
                job = start(workplace, name, content, {}, processes=processes)
                codes = job.wait()
                assert codes == [2] * processes, f"exit codes {codes}\n{job.text}"
                printed = [said(job, rank, "hf-minilm: ") for rank in range(processes)]
                assert all(len(lines) == 1 for lines in printed), printed
                assert name in printed[0][0]
                cache = job.folder.with_name(f"{job.folder.name}-corpus") / "cache"
                assert not list(cache.rglob("tokens.arrow"))
