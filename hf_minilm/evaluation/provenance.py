"""What a figure was measured with: versions and hardware, no name of a machine and no path."""

import glob
import platform
import re
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path, PurePath

import torch

from .. import __version__

_PROCESSORS = Path("/proc/cpuinfo")
_ABSOLUTE = re.compile(r"(^|[:=])([/~].*)$")


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of what the figures depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "hf_minilm": __version__,
    }


def describe_hardware(device: torch.device) -> dict[str, str | int]:
    """Return a device's kind and name, and the threads that torch computes with on the CPU."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {"device": device.type, "name": name, "threads": torch.get_num_threads()}


def processor_name() -> str:
    """Return the CPU's name, or its architecture where the system does not say more."""
    if _PROCESSORS.exists():
        for line in _PROCESSORS.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def source_name(source: str) -> str:
    """Return the last part of a path, and with a pattern the folder before it; `hub:` and `builtin:` names whole.

    The home folder is left out: it is called by its user's name.
    """
    if source.startswith(("hub:", "builtin:")):
        return source
    path = PurePath(source)
    if glob.has_magic(path.name) and path.parent != PurePath(Path.home()):
        return f"{path.parent.name}/{path.name}".lstrip("/")
    return path.name or source


def describe_command(words: Sequence[str]) -> str:
    """Return a command line in which an absolute path, or one that begins with ~, is its last part alone."""
    return shlex.join(_ABSOLUTE.sub(lambda match: match[1] + source_name(match[2]), word) for word in words)
