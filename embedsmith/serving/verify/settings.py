"""How another program is asked."""

from __future__ import annotations

from typing import Literal

ServerProtocol = Literal["auto", "openai", "vllm", "tei", "ollama"]
"""See `programs`; `auto` is by the URL."""
PromptsBy = Literal["client", "server"]
"""Who puts a role's prompt before its texts."""
TEXTS = 16
"""Of a request: text-embeddings-inference takes 32, and fewer tokens than some of ours have together."""
