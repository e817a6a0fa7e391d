"""Translate a text, and see which source tokens each written token looked at: the alignment that cross-attention finds.

    python examples/translate.py runs/translate/model "$(cat story.txt)"
    python examples/translate.py runs/translate/model "$(cat story.txt)" --picture alignment.svg

The picture is the mean over the heads of one decoder layer, by default of the last.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from fine_tune import run
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

import hf_minilm  # noqa: F401 -- registers the architecture
from hf_minilm.inspection import attention_maps, attention_svg


def translate(model_name: str, text: str, *, num_beams: int, layer: int, picture: Path | None) -> str:
    """Translate, and draw the alignment where a picture is wanted."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(model_name)
    model = AutoModelForSeq2SeqLM.from_pretrained(model_name).eval()
    inputs = tokenizer(text, return_tensors="pt")
    written = model.generate(**inputs, num_beams=num_beams, do_sample=False)
    if picture is not None:
        # Each row of the map belongs to the token that was written after reading up to the one before.
        with torch.no_grad():
            (weights,) = attention_maps(
                model, {**inputs, "decoder_input_ids": written[:, :-1]}, layers=[layer], named="*cross_attention"
            )
        source, target = (tokens_as_text(tokenizer, ids) for ids in (inputs["input_ids"][0], written[0, 1:]))
        picture.write_text(attention_svg(weights[0].mean(dim=0), target, key_tokens=source), encoding="utf-8")
    return tokenizer.decode(written[0], skip_special_tokens=True)


def tokens_as_text(tokenizer: Any, ids: torch.Tensor) -> list[str]:
    """Spell every token as a reader would."""
    return [tokenizer.decode([token]).strip() or "·" for token in ids.tolist()]


def main() -> None:
    """Translate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub name of an encoder-decoder")
    parser.add_argument("text", help="what to translate")
    parser.add_argument("--num-beams", type=int, default=4, help="hypotheses kept at each step; 1 is greedy")
    parser.add_argument("--picture", type=Path, help="an SVG to write, with the alignment")
    parser.add_argument("--layer", type=int, default=-1, help="the decoder layer to draw; negative from the last")
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("num_beams", "layer", "picture")}
    print(translate(arguments.model, arguments.text, **options))


if __name__ == "__main__":
    sys.exit(run(main))
