"""Starts ranks in a tenth of a second each: a process that has imported everything once and forks them from itself.

It runs as a script. A line of JSON on its input asks for a rank; its output tells when each has begun and ended. A
rank runs `hf_minilm.cli.main` as `python -m` would, in a session of its own, and ends as an interpreter does, so that
only its imports are spared. All ranks are killed when the input ends.

A fault may be asked for with a rank: `{"at": place, "count": n, "do": deed}` makes the n-th passage of a place do it,
or the n-th step compute with `nan` or `inf`; `decide` has the optimizer leave steps out by itself, as on a GPU.
"""

import contextlib
import faulthandler
import functools
import importlib
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What a run imports, early or late.
IMPORTED = (
    "accelerate",
    "hf_minilm.cli.pretrain",
    "hf_minilm.cli.bench",
    "hf_minilm.cli.check",
    "hf_minilm.hub.card",
    "hf_minilm.training.loop",
    "hf_minilm.training.memory",
    "hf_minilm.training.pretrain",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "torch.distributed.algorithms.join",
    "torch.nn.parallel.distributed",
    "transformers.generation.utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.pipelines",
)


def serve() -> dict[str, Any]:
    """Fork a rank for each request; returns in the rank, with the request."""
    input_end, output_end = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # what a rank prints before its own output is there
    wake_end, signal_end = os.pipe()
    os.set_blocking(signal_end, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(signal_end, warn_on_full_buffer=False)
    alive: set[int] = set()
    unread = b""
    while True:
        ready = _readable(input_end, wake_end)
        if wake_end in ready:
            os.read(wake_end, 4096)
            for pid, code in _ended():
                alive.discard(pid)
                _tell(output_end, {"pid": pid, "code": code, "at": time.monotonic()})
        if input_end not in ready:
            continue
        received = os.read(input_end, 65_536)
        if not received:
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os._exit(0)
        *lines, unread = (unread + received).split(b"\n")
        for line in lines:
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for end in (input_end, output_end, wake_end, signal_end):
                    os.close(end)
                return json.loads(line)
            alive.add(pid)
            _tell(output_end, {"started": pid})


def _readable(*ends: int) -> set[int]:
    import select

    return set(select.select(ends, [], [])[0])


def _ended() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def _tell(end: int, message: dict[str, Any]) -> None:
    os.write(end, json.dumps(message).encode() + b"\n")


def be_a_rank(request: dict[str, Any]) -> None:
    """Run the command line of a request in its environment, with its faults."""
    os.setsid()
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(request["output"], os.O_WRONLY | os.O_CREAT, 0o644)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.environ.update(request["environment"])
    faulthandler.register(signal.SIGUSR2)  # says where a rank is that does not end
    for fault in request["faults"]:
        install(fault)
    sys.argv = ["hf_minilm.cli.main", *request["words"]]
    runpy.run_module("hf_minilm.cli.main", run_name="__main__", alter_sys=True)


def install(fault: dict[str, Any]) -> None:
    """Make the n-th passage of a place do the deed; passages count from 1."""
    import torch
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from hf_minilm.training import assembly, checkpoint
    from hf_minilm.training.processes import Processes

    if fault["do"] == "decide":
        from hf_minilm.training import loop

        loop.skips_by_itself = lambda training: True
        return
    if fault["do"] in ("nan", "inf"):
        poison(fault["at"], step=fault["count"], value=float(fault["do"]))
        return
    passages = 0

    def pass_by() -> None:
        nonlocal passages
        passages += 1
        if passages == fault["count"]:
            perform(fault)

    if fault["at"] == "forward":

        def before_forward(module: torch.nn.Module, inputs: Any) -> None:
            if isinstance(module, PreTrainedModel) and module.training and torch.is_grad_enabled():
                pass_by()

        torch.nn.modules.module.register_module_forward_pre_hook(before_forward)
    elif fault["at"] == "file operation of a save":
        _count_file_operations(checkpoint, pass_by, first_save=1)
    elif fault["at"] == "file operation of the second save":
        _count_file_operations(checkpoint, pass_by, first_save=2)
    else:
        owner, name = {
            "backward": (Accelerator, "backward"),
            "exchange": (Processes, "gather"),
            "save": (checkpoint, "save_checkpoint"),
            "evaluation": (assembly, "measure_together"),
        }[fault["at"]]
        setattr(owner, name, _after(pass_by, getattr(owner, name)))


def poison(place: str, *, step: int, value: float) -> None:
    """Make a number of one step of this rank's something that is not finite; steps count from 1.

    Args:
        place: `gradient`, after it was shared; `loss`, the one that is told; or `activation`, in the first layer.
        step: The step.
        value: Not a number, or infinite.
    """
    import torch

    from hf_minilm.model.layers import Layer
    from hf_minilm.training import loop

    add_up_gradient = loop.add_up_gradient

    @functools.wraps(add_up_gradient)
    def poisoned(model: torch.nn.Module, *arguments: Any, **options: Any) -> Any:
        if options["step"] + 1 != step:
            return add_up_gradient(model, *arguments, **options)
        hooks = []
        if place == "activation":
            layer = next(module for module in model.modules() if isinstance(module, Layer))
            hooks = [layer.register_forward_hook(lambda layer, inputs, output: output * value)]
        losses = add_up_gradient(model, *arguments, **options)
        for hook in hooks:
            hook.remove()
        if place == "gradient":
            next(weight.grad for weight in model.parameters() if weight.grad is not None).flatten()[3] = value
        if place == "loss":
            losses[0]["loss"] = torch.tensor(value)
        return losses

    loop.add_up_gradient = poisoned


def _after(first: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def both(*arguments: Any, **options: Any) -> Any:
        first()
        return function(*arguments, **options)

    return both


def _count_file_operations(checkpoint: Any, pass_by: Callable[[], None], *, first_save: int) -> None:
    """Count each open, mkdir, rename, remove, rmdir and fsync inside of saves, rotation included."""
    inside, saves = False, 0
    save, sync = checkpoint.save_checkpoint, os.fsync

    def saving(*arguments: Any, **options: Any) -> Any:
        nonlocal inside, saves
        saves += 1
        inside = saves >= first_save
        try:
            return save(*arguments, **options)
        finally:
            inside = False

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if inside and event in {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}:
            pass_by()

    def counted_sync(descriptor: int) -> None:
        if inside:
            pass_by()
        sync(descriptor)

    checkpoint.save_checkpoint, os.fsync = saving, counted_sync
    sys.addaudithook(audit)


def perform(fault: dict[str, Any]) -> None:
    """Do a deed: a signal to oneself by its name, `raise`, `exit`, or `pause` with a file that says so."""
    deed = fault["do"]
    mark = Path(fault["mark"])
    writing = mark.with_name(f"{mark.name}.writing")
    writing.write_text(f"{time.monotonic()}")
    writing.rename(mark)
    if deed == "raise":
        raise RuntimeError("a fault that was asked for")
    if deed == "exit":
        sys.exit(0)
    if deed == "pause":
        _sleep_through_signals(fault["seconds"])
    else:
        os.kill(os.getpid(), getattr(signal, deed))


def _sleep_through_signals(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def main() -> None:
    """Import, say so, and serve."""
    for name in IMPORTED:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    print(json.dumps({"ready": os.getpid()}), flush=True)
    be_a_rank(serve())


if __name__ == "__main__":
    main()
