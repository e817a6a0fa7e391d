"""See where every layer and head of a model looks in a text: a page for the browser, without the network.

    python examples/look_at_attention.py runs/world/model "The keys to the cabinet are old."
    python examples/look_at_attention.py runs/world/model "The keys to the cabinet are old." --output keys.html

The model keeps its fast attention; the weights are computed beside it.
"""

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

import hf_minilm  # noqa: F401 -- registers the architecture
from hf_minilm.inspection import attention_html, attention_maps


def look(model_name: str, text: str, output: Path) -> str:
    """Write the page of a text, and say what is in it."""
    # Loading would report a head's weights as left over, and draw a bar for what takes a moment.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer, model = AutoTokenizer.from_pretrained(model_name), AutoModel.from_pretrained(model_name)
    inputs = tokenizer(text, return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    if not tokens:
        raise ValueError(f"text ({text!r}) must have at least one token; give more of it.")
    with torch.no_grad():
        maps = attention_maps(model, inputs)
    output.write_text(attention_html(maps, tokens), encoding="utf-8")
    return f"{output}: {len(maps)} layers x {maps[0].shape[1]} heads x {len(tokens)} tokens; open it in a browser"


def main() -> int:
    """Look and print; a user's mistake is one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub name of a model")
    parser.add_argument("text", help="what the model reads")
    parser.add_argument("--output", type=Path, default=Path("attention.html"), help="the page to write")
    arguments = parser.parse_args()
    try:
        print(look(arguments.model, arguments.text, arguments.output))
    except (ValueError, OSError) as error:
        print(f"look_at_attention: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
