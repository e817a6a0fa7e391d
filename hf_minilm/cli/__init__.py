"""What every command asks for, one file a subcommand."""

import sys

if sys.platform == "win32":  # the lock of a run folder and the signals that stop a run are POSIX's
    sys.exit("hf-minilm: the operating system (Windows) must be Linux or macOS; start it in WSL.")
