"""What a saved folder still needs after `save_pretrained`."""

from pathlib import Path


def open_to_other_readers(folder: Path) -> None:
    """Let whoever may read a folder's config.json read its weights too.

    safetensors 0.8 writes files that their owner alone may read, whatever the umask
    (https://github.com/safetensors/safetensors/issues/782), so that a server under another user would find none.

    Args:
        folder: Holds config.json and the .safetensors files of a model or of a checkpoint.
    """
    permissions = (folder / "config.json").stat().st_mode
    for weights in folder.glob("*.safetensors"):
        weights.chmod(permissions)
