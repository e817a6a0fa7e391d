"""Start of a training process: the processes asked for are the processes got, or nothing runs."""

import functools
import os
import timeit
from collections.abc import Mapping
from typing import cast

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DistributedType, DynamoBackend, LoggerType, parse_flag_from_env
from transformers import PreTrainedConfig

from ..model.configuration_minilm import MiniLMConfig
from ..model.positions import build_positions
from ..model.variable_length import FIRST_WITH_KERNEL, LONGEST_TRAINED_BY_FORMULA, VARIABLE_LENGTH
from .processes import FIRST_STEP_TIMEOUT
from .recipe import Recipe, TrainingSettings, check_divides

LAUNCH_LINE = "torchrun --standalone --nproc_per_node {processes} -m hf_minilm.cli.main pretrain RECIPE.yaml"
"""The line that starts several processes on one machine, with GPUs or without."""

_LARGEST_HEAD = 256  # that the kernel for sequences of unequal length knows

_WORTHWHILE_SPEEDUP = 1.5
"""Between the 0.8 of a Xeon, on which a step takes longer in bf16, and the 2.5 of an EPYC, on which it takes 0.6."""


def ask_for_reproducible_products() -> None:
    """Ask MKL, before its first product, for products that do not depend on where in memory their numbers lie.

    On processors other than Intel's they differ in the last bit otherwise, and so does a run that goes on in another
    process. A wish of the user's own is left alone.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO")


def set_threads(recipe: Recipe) -> None:
    """Compute with as many threads as a recipe says.

    One, where the bits must not depend on the number of processes, and beside a GPU: there the host copies half a
    megabyte at a time, and a second thread keeps it waiting for milliseconds where others want the core.
    """
    needs_one = recipe.training.gradient_parts is not None or trains_on_gpu()
    threads = recipe.training.threads or (1 if needs_one else None)
    if threads is not None:
        torch.set_num_threads(threads)


def fix_order_of_sums(recipe: Recipe) -> None:
    """Ask for kernels that add up in a fixed order on a GPU too, where a recipe asks for the same bits.

    Attention's backward pass and cuBLAS take others otherwise. torch warns of an operation that has none.
    """
    if recipe.training.gradient_parts is not None and trains_on_gpu():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def start_accelerator(precision: str, *, trackers: tuple[str, ...], folder: str) -> Accelerator:
    """Join the other processes, on CUDA devices where there are any and over gloo elsewhere.

    Args:
        precision: `fp32` or `bf16`.
        trackers: Names of Accelerate trackers.
        folder: Where trackers write.

    Raises:
        ValueError: If the number of processes is not what the launcher asked for, with the line that works; or if a
            tracker is not there, or there are fewer GPUs than processes.
    """
    if os.environ.get("RANK", "0") == "0":  # the main process, which alone logs
        check_trackers(trackers)
    asked = processes_asked_for(os.environ)
    if trains_on_gpu():
        check_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count())
    accelerator = Accelerator(
        cpu=not trains_on_gpu(),
        mixed_precision="bf16" if precision == "bf16" else "no",
        log_with=list(trackers) or None,
        project_dir=folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=FIRST_STEP_TIMEOUT)],
    )
    check_processes(accelerator.num_processes, asked, what="the launcher's, by WORLD_SIZE or MASTER_PORT")
    check_plugins(accelerator)
    return accelerator


def check_plugins(accelerator: Accelerator) -> None:
    """Make sure that Accelerate's own configuration asks for nothing that would be put around the model unseen.

    Raises:
        ValueError: If it asks for FSDP, DeepSpeed or another plugin, or compiles.
    """
    kind, compiler = accelerator.distributed_type, accelerator.state.dynamo_plugin.backend
    if kind not in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        what, instead = f"distribution ({kind.value})", "training.parallelism=sharded shares a model out"
    elif compiler != DynamoBackend.NO:
        what, instead = f"dynamo backend ({compiler.value})", "training.compile compiles"
    else:
        return
    line = LAUNCH_LINE.format(processes=accelerator.num_processes)
    raise ValueError(f"{what} of Accelerate's configuration must stay NO, {instead}; start with: {line}")


def check_trackers(names: tuple[str, ...]) -> None:
    """Make sure that each tracker is one and is installed; Accelerate leaves out one that is not, and logs nothing.

    Raises:
        ValueError: If one is not both.
    """
    installed = {str(name) for name in get_available_trackers()}
    for name in names:
        if name == "all":
            if not installed:
                raise ValueError("output.trackers (all) must find one that is installed; install one, or remove it.")
            continue
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ValueError(f"output.trackers ({name}) must be trackers of Accelerate; choose among {known}.")
        if name in LoggerType.list() and name not in installed:  # others were registered by whoever called
            raise ValueError(f"output.trackers ({name}) must be installed; run pip install {name}, or remove it.")


def processes_asked_for(environment: Mapping[str, str]) -> int:
    """Read from a process's environment how many its launcher was asked for; at least 2 where it does not say more.

    `accelerate launch --num_processes 2` starts a single process without a GPU, and says nothing. But it names the port
    at which several would have met, without the number of processes that a real launcher gives beside it.
    """
    if "WORLD_SIZE" not in environment and "ACCELERATE_MIXED_PRECISION" in environment:
        return 2 if "MASTER_PORT" in environment else 1
    return int(environment.get("WORLD_SIZE", "1"))


def check_processes(running: int, asked: int, *, what: str) -> None:
    """Compare the number of processes that run with the number that was asked for.

    Raises:
        ValueError: If they differ; each process would train alone and overwrite the others' files.
    """
    if running != asked:
        line = LAUNCH_LINE.format(processes=asked)
        raise ValueError(f"number of processes ({running}) must equal {what} ({asked}); start with: {line}")


def check_gpus(processes: int, gpus: int) -> None:
    """Make sure that each process of this machine has a GPU of its own.

    Raises:
        ValueError: If there are fewer.
    """
    if processes > gpus:
        raise ValueError(
            f"number of processes on this machine ({processes}) must be at most that of its GPUs ({gpus}); start with: "
            f"{LAUNCH_LINE.format(processes=gpus)}"
        )


def check_number(recipe: Recipe, running: int) -> None:
    """Make sure that a recipe can be carried out by the processes that run.

    Raises:
        ValueError: If they are not as many as it asks for, or cannot share out its rows or parts.
    """
    if recipe.training.processes is not None:
        check_processes(running, recipe.training.processes, what="training.processes")
    check_rows(recipe.training.batch_rows, num_processes=running)
    check_micro_batches(recipe.training, num_processes=running)
    if recipe.training.gradient_parts is not None:
        check_divides(running, recipe.training.gradient_parts)


def check_rows(batch_rows: int, *, num_processes: int) -> None:
    """Make sure that every process has a row of every step.

    Raises:
        ValueError: If there are more processes than rows.
    """
    if num_processes > batch_rows:
        raise ValueError(
            f"training.batch_rows ({batch_rows}) must be at least the number of processes ({num_processes}); "
            "raise it, or start fewer processes."
        )


def check_micro_batches(settings: TrainingSettings, *, num_processes: int) -> None:
    """Make sure that processes which share a model out have as many micro-batches each: they exchange weights in each.

    Raises:
        ValueError: If some have more than others.
    """
    micro, fewest, left = settings.micro_batch_rows, *divmod(settings.batch_rows, num_processes)
    if settings.parallelism != "sharded" or micro is None:
        return
    if -(-fewest // micro) != -(-(fewest + bool(left)) // micro):
        raise ValueError(
            f"training.micro_batch_rows ({micro}) must divide the rows of each process, {fewest} or {fewest + 1}, into "
            "as many parts, where the model is shared out; choose another number, or batch_rows that the number of "
            f"processes ({num_processes}) divides."
        )


def trains_on_gpu() -> bool:
    """Tell whether Accelerate takes a GPU: where there is one, but for `accelerate launch --cpu`."""
    return torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")


def resolve_precision(precision: str) -> str:
    """Resolve `auto`: bf16 where the device multiplies bf16 matrices faster, else fp32.

    GPUs and CPUs with AMX tiles do. Of CPUs that have AVX-512's bf16 instructions alone some do and some do not, so
    there it is measured.
    """
    if precision != "auto":
        return precision
    if trains_on_gpu():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if torch.cpu._is_amx_tile_supported():
        return "bf16"
    is_faster = torch.cpu._is_avx512_bf16_supported() and bf16_speedup() > _WORTHWHILE_SPEEDUP
    return "bf16" if is_faster else "fp32"


@functools.cache
def bf16_speedup() -> float:
    """Measure how many times faster this CPU multiplies matrices in bf16 than in fp32; takes up to half a second."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(2048, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
        seconds[dtype] = min(timeit.repeat(functools.partial(torch.matmul, left, right), number=1, repeat=7))
    return seconds[torch.float32] / seconds[torch.bfloat16]


def resolve_attention(attention: str, *, precision: str, row_length: int, config: PreTrainedConfig) -> str:
    """Resolve `auto`: sdpa, but in bf16 the kernel that never looks across sequences, or on a CPU the formula.

    On CUDA the kernel trains 5 to 8 % faster in rows that are one sequence each, and more in others. On a CPU with
    short rows the backward pass of sdpa takes up to nine times its forward pass, and a whole step of rows of 128 tokens
    10 to 30 % more time than with the written-out formula; see model_cards/LOG.md.

    Args:
        attention: `auto`, or the name of an implementation.
        precision: `bf16`, or another one.
        row_length: Positions of a row.
        config: The model's.

    Raises:
        ValueError: If the kernel for unequal lengths is asked for where it cannot compute.
    """
    on_gpu = trains_on_gpu()
    has_kernel = on_gpu and torch.cuda.get_device_capability() >= FIRST_WITH_KERNEL
    if attention == VARIABLE_LENGTH and on_gpu and (precision != "bf16" or not has_kernel):
        raise ValueError(
            f"training.attention ({attention}) must have training.precision bf16 and a GPU with compute capability "
            f"{'.'.join(map(str, FIRST_WITH_KERNEL))} or later; set it to auto or sdpa."
        )
    if attention != "auto":
        return attention
    if precision != "bf16":
        return "sdpa"
    if on_gpu:
        return VARIABLE_LENGTH if has_kernel and _looks_inside_sequences_alone(config) else "sdpa"
    return "eager" if row_length <= LONGEST_TRAINED_BY_FORMULA else "sdpa"


def _looks_inside_sequences_alone(config: PreTrainedConfig) -> bool:
    """Tell whether the kernel has all that a model's attention does, and knows heads of its size."""
    if not isinstance(config, MiniLMConfig) or config.cross_attention_hidden_size is not None:
        return False
    has_bias, head_dim = build_positions(config).is_added_to_scores, cast(int, config.head_dim)
    return config.attention_dropout == 0 and not has_bias and head_dim % 8 == 0 and head_dim <= _LARGEST_HEAD
