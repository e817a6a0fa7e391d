"""transformers' own tests, out of the source distribution of the version installed: fetched once, kept in the cache."""

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from hf_minilm.data.store import cache_root

DOWNLOAD_SECONDS = 600


def tests_of_transformers() -> Path:
    """Give the folder of the tests, asking pip for the source distribution where the cache does not have it.

    Raises:
        FileNotFoundError: In one line, if neither the cache nor pip has it.
    """
    release = version("transformers")
    folder = cache_root() / "transformers_tests" / release
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as scratch:
            tests = unpack_tests(download(release, Path(scratch), kept_at=folder), Path(scratch) / "tests")
            try:
                tests.rename(folder)
            except OSError:
                if not folder.is_dir():  # another run was first
                    raise
    return folder


def download(release: str, folder: Path, *, kept_at: Path) -> Path:
    """Fetch the archive into a folder by pip, from whatever index pip is set up to use."""
    # pip reads a source distribution's metadata after fetching it, which needs setuptools and no build.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "transformers"]
    command += ["--dest", str(folder), f"transformers=={release}"]
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=DOWNLOAD_SECONDS
        )
        answer = [line.removeprefix("ERROR: ") for line in finished.stderr.strip().splitlines()]
    except subprocess.TimeoutExpired:
        answer = [f"no answer within {DOWNLOAD_SECONDS} seconds"]
    archives = list(folder.glob("transformers-*.tar.gz"))
    if not archives:
        raise FileNotFoundError(
            f"the source distribution of transformers ({release}) must be within reach of pip or kept in {kept_at}; "
            f"connect to a package index once. pip says: {answer[-1] if answer else 'nothing'}"
        )
    return archives[0]


def unpack_tests(archive: Path, folder: Path) -> Path:
    """Unpack the archive's folder of tests, and nothing else of it."""
    with tarfile.open(archive) as distribution:
        for member in distribution:
            inside = Path(member.name).parts[1:]
            if member.isfile() and inside[:1] == ("tests",):
                member.name = str(Path(*inside[1:]))
                distribution.extract(member, folder, filter="data")
    return folder
