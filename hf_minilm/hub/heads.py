"""Open a saved model through every head that it names, and let each compute; run here, and where the package is not.

This file is imported by the package, and it is a program of its own for a process in which `hf_minilm` cannot be
imported: `python -P heads.py JOB.json`. It therefore imports nothing of the package, and both processes ask alike.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

_PACKAGE = "hf_minilm"
_PIPELINES = {
    "ForPreTraining": "fill-mask",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
}
"""The pipelines that transformers has, by how a class's name ends; any other opens for its features."""


@dataclass(frozen=True)
class Place:
    """Where a model is opened.

    Attributes:
        name: A folder, or a repository of the Hub.
        revision: Of a repository, the commit.
        runs_code: Whether the code that lies beside the weights is run, in place of the package's.
        example: A text for the pipeline; `[MASK]` stands for the tokenizer's mask.
    """

    name: str
    revision: str | None = None
    runs_code: bool = False
    example: str = "[MASK]"

    def options(self) -> dict[str, Any]:
        """Return the keywords of `from_pretrained`; the code is taken from the same commit as the weights."""
        revision = {} if self.revision is None else {"revision": self.revision}
        code = {"code_revision": self.revision} if self.runs_code and self.revision is not None else {}
        return {"trust_remote_code": self.runs_code, **revision, **code}


def head_outputs(place: Place) -> dict[str, torch.Tensor]:
    """Open a model through every Auto class in its `auto_map`, and compute with each on the CPU, in float32.

    A head whose weights were not saved gets random ones, the same in every process.

    Returns:
        Tensors by `Auto class/output`, as `AutoModelForCausalLM/logits`.
    """
    config = transformers.AutoConfig.from_pretrained(place.name, **place.options())
    _check_origin(config, place)
    outputs: dict[str, torch.Tensor] = {}
    with _quiet():
        for auto in (name for name in config.auto_map if name != "AutoConfig"):
            outputs |= {f"{auto}/{name}": value for name, value in _compute(config, auto, place)}
    return outputs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers not tell which weights a head does not use, or lacks: most heads are not the model's own."""
    disabled, shows = logging.root.manager.disable, transformers.logging.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.disable(disabled)
        if shows:
            transformers.logging.enable_progress_bar()


def _compute(config: Any, auto: str, place: Place) -> Iterator[tuple[str, torch.Tensor]]:
    """Open one head and compute with it; yield the outputs that are numbers, with their names."""
    torch.manual_seed(0)
    options = {**place.options(), "dtype": torch.float32, "use_safetensors": True}
    model = getattr(transformers, auto).from_pretrained(place.name, **options).eval()
    with torch.no_grad():
        output: Mapping[str, Any] = model(**_inputs(config, auto))
    for name, value in output.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            yield name, value.clone()


def _check_origin(config: Any, place: Place) -> None:
    module = type(config).__module__
    if module.startswith("transformers_modules") != place.runs_code:
        raise ValueError(f"code of the model ({module}) must be {'its own' if place.runs_code else 'the package'}'s.")


def _inputs(config: Any, auto: str) -> dict[str, torch.Tensor]:
    """Make token ids, the last two of the second row padding; for multiple choice, of 3 choices each."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 7) if auto.endswith("MultipleChoice") else (2, 7)
    input_ids = torch.randint(0, config.vocab_size, shape, generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, ..., -2:] = 0
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.randint(0, config.vocab_size, (2, 5), generator=generator)
    return inputs


def say_something(place: Place) -> str:
    """Run a pipeline of the model's class, or what transformers has in its place, and return what it says first."""
    config = transformers.AutoConfig.from_pretrained(place.name, **place.options())
    tokenizer = transformers.AutoTokenizer.from_pretrained(place.name, **place.options())
    example = place.example.replace("[MASK]", tokenizer.mask_token or "")
    if config.is_encoder_decoder:
        return _say_from_source(place, tokenizer, example)
    name = (config.architectures or ["Model"])[0]
    task = next((task for ending, task in _PIPELINES.items() if name.endswith(ending)), "feature-extraction")
    options: dict[str, Any] = {"model": place.name, **place.options(), "device": "cpu", "tokenizer": tokenizer}
    make_pipeline: Any = transformers.pipeline  # its overloads know literal tasks only
    pipeline = make_pipeline(task, **options)
    if task == "text-generation":
        said = pipeline(example, max_new_tokens=5, do_sample=False)[0]["generated_text"]
    elif task == "fill-mask":
        said = pipeline(example)[0]["token_str"]
    else:
        said = json.dumps(pipeline(example), default=str)[:80]
    return f"{task}: {said}"


def _say_from_source(place: Place, tokenizer: Any, example: str) -> str:
    # transformers 5 has no pipeline from text to text.
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(place.name, **place.options())
    with torch.no_grad():
        output = model.generate(**tokenizer(example, return_tensors="pt"), max_new_tokens=10, do_sample=False)
    return f"generate: {tokenizer.decode(output[0], skip_special_tokens=True)}"


class _Blocker(MetaPathFinder):
    """Makes the package as absent as it is on another machine."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002 (Python's own)
        """Refuse the package, and leave any other module to the next finder."""
        if fullname.split(".")[0] == _PACKAGE:
            raise ModuleNotFoundError(f"no module named {fullname}", name=fullname)


def main(job_file: str) -> None:
    """Open each place of a job, and write beside it `outputs-N.safetensors`, and `said.json` with what was said."""
    sys.meta_path.insert(0, _Blocker())
    transformers.logging.set_verbosity_error()
    path = Path(job_file)
    said = []
    for number, fields in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        place = Place(**fields)
        save_file(head_outputs(place), path.with_name(f"outputs-{number}.safetensors"))
        said.append(say_something(place))
    path.with_name("said.json").write_text(json.dumps(said), encoding="utf-8")


def job(places: list[Place]) -> str:
    """Write the job file's text."""
    return json.dumps([asdict(place) for place in places])


if __name__ == "__main__":
    main(sys.argv[1])
