"""What a process has one of, and others in it use too."""

import logging
import os
import random
import signal
import sys
import threading
import warnings

import numpy as np
import torch
import torch._dynamo
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def state() -> dict[str, object]:
    """Return what a process has one of."""
    kind, numbers, *rest = np.random.get_state()  # noqa: NPY002
    loggers = {name: logging.getLogger(name) for name in list(logging.root.manager.loggerDict)}
    with_torch = {
        "torch draws": torch.get_rng_state().numpy().tobytes(),
        "cores": torch.get_num_threads(),
        "type": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
        "benchmark": torch.backends.cudnn.benchmark,
        "matmul": (torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "attention kernels": (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.cudnn_sdp_enabled(),
            torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed(),
        ),
        "attention functions": dict(ALL_ATTENTION_FUNCTIONS.items()),
        "dynamo": torch._dynamo.config.save_config_portable(),
        "stance": repr(torch._dynamo.eval_frame._stance),
        "mkldnn": torch.backends.mkldnn.enabled,
    }
    return with_torch | {
        "environment": dict(os.environ),
        "draws": random.getstate(),
        "numpy draws": (kind, numbers.tobytes(), *rest),
        "numpy errors": np.geterr(),
        "printing": np.get_printoptions(),
        "warnings": list(warnings.filters),
        "levels": {"": logging.root.level} | {name: logger.level for name, logger in loggers.items()},
        "handlers": list(logging.root.handlers),
        "disabled": logging.root.manager.disable,
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "recursion": sys.getrecursionlimit(),
        "folder": os.getcwd(),
        "path": list(sys.path),
    }


def difference(before: dict[str, object], after: dict[str, object]) -> dict[str, object]:
    """Return what is another now. A logger that was not there before is nobody's."""
    levels = after["levels"]
    after = after | {"levels": {name: levels[name] for name in before["levels"]}}
    return {name: (before[name], value) for name, value in after.items() if value != before[name]}
