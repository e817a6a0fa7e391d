"""S9: no token, key or password of the environment is in any file or line of a run, however the run ends."""

import signal
from dataclasses import replace

from jobs import OBJECTIVES, Fault, Workplace
from tries import MARKS, Row

pytestmark = MARKS

SECRETS = {
    "HF_TOKEN": "hf_QwErTyUiOpAsDfGhJkLzXcVbNm12345678",
    "HUGGING_FACE_HUB_TOKEN": "hf_AAAAtyUiOpAsDfGhJkLzXcVbNm12345678",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
    "HTTPS_PROXY": "http://somebody:correct-horse-battery@127.0.0.1:9",
    "MY_PASSWORD": "correct-horse-battery-staple",
}
HIDDEN = [*(value for value in SECRETS.values() if "@" not in value), "correct-horse-battery"]
ENDS = {
    "finished": ([], 0),
    "stopped": ([Fault(0, at="backward", count=7, do="SIGTERM")], 128 + signal.SIGTERM),
    "failed": ([Fault(0, at="backward", count=7, do="raise")], 1),
    "killed": ([Fault(0, at="file operation of the second save", count=20, do="SIGKILL")], -signal.SIGKILL),
    "not finite": ([Fault(0, at="loss", count=step, do="nan") for step in (5, 6, 7, 8)], 2),
}


def test_no_secret_is_in_what_a_run_writes_or_says(workplace: Workplace) -> None:
    cases = [(objective, end) for objective in OBJECTIVES for end in ENDS]
    workplace.secrets = SECRETS
    with Row("S9", tries=len(cases), few=5) as row:
        for objective, end in row.random.sample(cases, row.tries):
            faults, code = ENDS[end]
            settings = {**OBJECTIVES[objective], "training.budget": "12steps", "training.save_every": "3steps"}
            with row.attempt(f"{objective}, {end}"):
                own_faults = [replace(fault) for fault in faults]
                job = workplace.start(workplace.new_folder("secret"), settings, faults=own_faults)
                assert job.wait() == [code], job.text
                files = [path for path in job.folder.rglob("*") if path.is_file()]
                assert len(files) > 5
                for path in [*files, job.ranks[0].output]:
                    content = path.read_bytes()
                    assert not [secret for secret in HIDDEN if secret.encode() in content], path
