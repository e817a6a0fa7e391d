"""transformers' own common tests, as a package whose modules lie in the cache.

Importing this module fetches them where they are missing, and sets the process up for our classes to be tested. The
source distribution holds the top folder of the tests and none of the folders below it, so what the top folder imports
from there has a stand-in of our own; where a distribution does hold the original, the original is used.
"""

import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Unpack

import transformers
import transformers.utils
from source_distribution import tests_of_transformers
from transformers.utils import TransformersKwargs

import hf_minilm
from hf_minilm.model.configuration_minilm import AUTO_MAP
from hf_minilm.model.configuration_minilm_seq2seq import SEQ2SEQ_AUTO_MAP

TESTS = tests_of_transformers()
__path__ = [str(TESTS)]

STAND_INS = {
    "generation.test_utils": "stand_ins.generation",
    "exporters.test_export": "stand_ins.export",
    "utils.test_configuration_utils": "stand_ins.common_configuration",
    "distributed_testing_utils": "stand_ins.rank_processes",
}
"""Module that the suite imports from itself -> the module of ours that takes its place where it is not there."""


def put_stand_ins_in_place() -> list[str]:
    """Make the suite's own imports find the stand-ins; give the names of the modules replaced."""
    absent = [name for name in STAND_INS if not (TESTS / Path(*name.split(".")).with_suffix(".py")).exists()]
    for name in absent:
        sys.modules[f"{__name__}.{name}"] = import_module(STAND_INS[name])
    return absent


def enter_our_classes() -> None:
    """Name our classes in transformers' static tables, by which the suite decides what a class is.

    A class that no table names is of no kind: it gets no labels, is never trained, and its tests pass on nothing.
    """
    for auto_class, target in (*AUTO_MAP.items(), *SEQ2SEQ_AUTO_MAP.items()):
        if auto_class != "AutoConfig":
            model_class = getattr(hf_minilm, target.partition(".")[2])
            static = getattr(transformers, auto_class)._model_mapping._model_mapping
            static[model_class.config_class.model_type] = model_class.__name__
            # By this annotation alone it knows that attention weights may be asked for.
            inspect.unwrap(model_class.forward).__annotations__["kwargs"] = Unpack[TransformersKwargs]


def installed_transformers(*_: Any) -> Any:
    """Take the place of the import by which the suite loads a second transformers from a source tree."""
    return transformers


transformers.utils.direct_transformers_import = installed_transformers
enter_our_classes()
REPLACED = put_stand_ins_in_place()
