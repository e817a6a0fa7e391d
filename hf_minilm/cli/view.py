"""`hf-minilm view`: a page, and a picture, of where a model looks in a text."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..inspection.reading import Reading

HELP = "Write a page for the browser, and a picture, of where a model looks in a text: every layer, head and token."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("model", help="folder or Hub name of a model")
    parser.add_argument("text", help="what the model reads")
    parser.add_argument(
        "--second", metavar="TEXT", help="an encoder's second sentence, or the target of an encoder-decoder"
    )
    parser.add_argument("--output", type=Path, default=Path("attention.html"), help="the page; attention.html")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="a picture beside it: .png or .svg")
    parser.add_argument("--layer", type=int, default=-1, help="the layer that is shown first, from 0; the last")
    parser.add_argument("--head", type=_head, default=0, help="the head likewise, or mean or rollout; 0")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; the exit code is 0."""
    from ..inspection.attention_page import attention_page
    from ..inspection.attention_picture import draw_attention
    from ..inspection.picture_file import refuse_other_formats

    if arguments.picture is not None:
        refuse_other_formats(arguments.picture)
    reading = _read(arguments.model, arguments.text, second=arguments.second)
    chosen = {"layer": arguments.layer, "head": arguments.head}
    page = attention_page(reading, **chosen)
    arguments.output.write_text(page, encoding="utf-8")
    for look in reading.looks:
        layers, heads, queries, keys = look.weights.shape
        print(f"{look.stack}, {look.kind}: {layers} layers x {heads} heads x {queries} x {keys} tokens")
    print(f"{arguments.output}: {len(page) / 1000:,.0f} kB; open it in a browser")
    if arguments.picture is not None:
        draw_attention(reading, arguments.picture, **chosen)
        print(arguments.picture)
    return 0


def _head(word: str) -> int | str:
    try:
        return int(word)
    except ValueError:
        return word


def _read(name: str, text: str, *, second: str | None) -> "Reading":
    import torch
    from transformers import AutoModel, AutoModelForSeq2SeqLM

    from ..conversion.opening import open_config, open_tokenizer, open_weights
    from ..inspection.reading import read_text

    model_class: Any = AutoModelForSeq2SeqLM if open_config(name).is_encoder_decoder else AutoModel
    model, _, _ = open_weights(name, model_class, dtype=torch.float32)
    tokenizer = open_tokenizer(name)
    if tokenizer is None:
        raise FileNotFoundError(f"tokenizer of the model ({name}) must lie beside it; save it there.")
    shown = _end_of(Path(name).resolve()) if Path(name).is_dir() else name
    return read_text(model, tokenizer, text, second=second, name=shown)


def _end_of(folder: Path) -> str:
    """Give the end of a path: what is above it is nobody's business who sees the page, a user's name least of all."""
    return folder.name if folder.parent == Path.home() else "/".join(folder.parts[-2:])
