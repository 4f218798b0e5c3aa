"""NV-Retriever-v1 as it should lie on the hub, read without its code. Unverified: its files were not at hand.

config.json                  `model_type: nvretriever`, the rest a Mistral's
*.safetensors                the tensors of a Mistral without its head, named as transformers names them
tokenizer.json, …            the tokenizer

Every token sees every other one; a vector is the mean of the last states, the prefix left out, and has length 1. The
prefixes are those of its model card, which joins them to a text with one more space; lengths are those of its training.

The files lie behind a form and were not at hand. This layout is inferred from the model's card, hub page and paper. So
is it that the prefix's tokens are left out of the mean, and with them the one that begins every text. No vector was
compared with one of the released model. A tensor that is missing or has another name is an error which names it. The
weights are for non-commercial use.

Source: NV-Retriever, https://arxiv.org/abs/2407.15831, appendix B; https://huggingface.co/nvidia/NV-Retriever-v1.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import nn
from transformers import MistralModel

from embedsmith.data.files import read_json
from embedsmith.errors import ModelError
from embedsmith.models.nv_embed import around, bidirectional_mistral
from embedsmith.models.sizes import check_numbers

_PROMPTS = {
    "query": "Given a web search query, retrieve relevant passages that answer the query:  ",
    "document": "passage:  ",
}
_QUERY_TOKENS, _PASSAGE_TOKENS = 192, 512
_UNVERIFIED = "this reader is unverified: NVIDIA's files may be other than its card says"


def read_nv_retriever(folder: Path, *, name: str, dtype: torch.dtype) -> tuple[list[nn.Module], dict[str, str]]:
    """Return the modules of a checkpoint, and its prompts.

    Raises:
        ModelError: a file is missing or broken, or a tensor is missing, unknown or of another shape; names it.
    """
    config = bidirectional_mistral(read_json(folder / "config.json"))
    check_numbers(list(folder.glob("*.safetensors")), lambda: MistralModel(config), name=name)
    try:
        backbone, found = MistralModel.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, SafetensorError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(f"{name}: cannot be opened: {first_line}", hint=f"copy it whole; {_UNVERIFIED}") from error
    for what, odd in (
        ("no tensor", sorted(found["missing_keys"])),
        ("unknown tensor", sorted(found["unexpected_keys"])),
    ):
        if odd:
            others = f" and {len(odd) - 1:,} more" if len(odd) > 1 else ""
            raise ModelError(
                f"{name}: {what} {odd[0]!r}{others}",
                hint=f"weights and config.json do not belong together, or {_UNVERIFIED}",
            )
    backbone.eval()
    transformer = around(backbone, folder, name=name)
    longest = config.max_position_embeddings
    transformer.query_length = min(_QUERY_TOKENS, longest)
    transformer.document_length = min(_PASSAGE_TOKENS, longest)
    modules = [transformer, Pooling(config.hidden_size, pooling_mode="mean"), Normalize()]
    return modules, dict(_PROMPTS)
