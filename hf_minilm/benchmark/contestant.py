"""The process of one contestant: work as JSON in, figures as one line of JSON out.

    python -m hf_minilm.benchmark.contestant WORKING_FOLDER WORK

A process of its own means that no memory, no thread and no setting of another contestant is left in it. All that
libraries print goes to standard error.
"""

import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .machine import describe_machine, measuring_device
from .matrix_rate import matrix_rates
from .work import EncodingWork, GenerationWork, TrainingWork, Work, read_work
from .working_folder import WorkingFolder


def do_work(work: Work, folder: WorkingFolder) -> dict[str, Any]:
    """Do some work and give its figures."""
    device = measuring_device()
    if isinstance(work, TrainingWork):
        if work.maker == "ours":
            from .ours import train_ours

            return train_ours(work, folder, device)
        from .peers import train_peer

        return train_peer(work, folder, device)
    if isinstance(work, EncodingWork):
        from .inference import encode_texts

        return encode_texts(work, folder, device)
    if isinstance(work, GenerationWork):
        from .inference import generate_tokens

        return generate_tokens(work, device)
    return {"machine": asdict(describe_machine()), "matrix_rates": matrix_rates()}


def main() -> None:
    """Do the work that the command line names."""
    folder, work = sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):
        figures = do_work(read_work(work), WorkingFolder(Path(folder)))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
