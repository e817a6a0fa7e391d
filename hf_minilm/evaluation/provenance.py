"""What a figure was measured with: versions and hardware, no name of a machine and no path."""

import glob
import platform
import re
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import torch

from .. import __version__

_PROCESSORS = Path("/proc/cpuinfo")
_PLACE = re.compile(r"(?:^|(?<=[:=]))(?:[/~].*|[^:=/\\]*[/\\].*)$", re.DOTALL)
"""What may be a path in a word of a command: all of it, or what follows `KIND:` or `--option=`."""


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


def reduce_path(text: str) -> str:
    """Return the last part of a path that leads somewhere on this machine, and any other text as it is.

    A relative path that does not climb says nothing about the machine.
    """
    windows = PureWindowsPath(text)
    leads = PurePosixPath(text).is_absolute() or windows.drive or text.startswith(("~", "\\"))
    if not leads and ".." not in windows.parts:
        return text
    return windows.name or "text"  # a Windows path is divided at both kinds of slash


def describe_command(words: Sequence[str]) -> str:
    """Return a command line in which a path that leads somewhere on this machine is its last part alone."""
    return shlex.join(_PLACE.sub(lambda match: reduce_path(match[0]), word) for word in words)
