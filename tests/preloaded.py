"""What the process imports whose forks run the tests' programs; it computes nothing, and has one thread."""

import importlib
import os
import pkgutil

os.environ["OMP_NUM_THREADS"] = "1"

import accelerate  # noqa: F401
import bm25s  # noqa: F401
import ir_measures  # noqa: F401
import pyarrow.parquet  # noqa: F401
import scipy.stats  # noqa: F401
import sentence_transformers  # noqa: F401
import torch
import torch.distributed
import transformers.models.bert.modeling_bert
import transformers.models.llama.modeling_llama
import transformers.trainer  # noqa: F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import embedsmith
from embedsmith import collector

get_checkpoint_conversion_mapping("bert")  # a table that is made once, of a thousand patterns
torch.set_num_threads(1)  # as in the tests: the last digits of a sum depend on it
for module in pkgutil.walk_packages(embedsmith.__path__, "embedsmith."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in ("prometheus_client", "starlette"):  # of the extra `serve`
                raise
collector.keep()


def fsync(file: int) -> None:
    """Wait for no disk, as in the tests: a process that is killed loses nothing of what it has written."""


os.fsync = fsync
