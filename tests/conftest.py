"""What holds for every test: shapes and types are checked as they are annotated, and no model hub is asked."""

from __future__ import annotations

import os
from typing import runtime_checkable

from jaxtyping import install_import_hook

from embedsmith.progress import Progress
from embedsmith.teachers.named import Teacher

# Read by huggingface_hub when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

pytest_plugins = ["tests.chat_server", "tests.tiny_models"]

# `settings` is no part of this: beartype refuses the `Self` of a class that it has not seen whole.
ARRAYS = ["data", "evaluation", "mining", "models", "search", "teachers", "training", "vectors"]

# beartype asks `isinstance`, which a protocol answers only when it is told to.
for protocol in (Progress, Teacher):
    runtime_checkable(protocol)

install_import_hook([f"embedsmith.{part}" for part in ARRAYS], "beartype.beartype")
