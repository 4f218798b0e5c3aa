"""Settings of teachers; importing them loads no model library."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embedsmith.models.settings import ReadingDtype
from embedsmith.settings import Seed, Settings
from embedsmith.teachers.bm25 import BM25Settings, Stemmer, StopWords


class TeacherSettings(Settings):
    """How teachers read texts. Each kind of teacher takes what concerns it."""

    dtype: ReadingDtype = "auto"
    """Precision of a model on this machine. `auto`: bfloat16 where the hardware has it, on a CPU for longer texts.
    `int8`, of an embedding model on a CPU, is faster than float32 and less exact; cross-encoders take float32."""
    compile: bool = False
    """Compile a model's layers, on a GPU: half a minute at first, then a quarter faster where the model is large."""
    max_tokens: int | None = Field(None, gt=0)
    """Tokens of a text that a model on this machine reads (a cross-encoder: of query and passage together); its own
    limit by default."""
    query_prompt: str | None = None
    """What stands before a query; the model's own prompt by default, "" for none."""
    passage_prompt: str | None = None
    """What stands before a passage; the model's own prompt by default, "" for none."""
    batch_tokens: int | None = Field(None, gt=0)
    """Tokens, padding included, that an embedding model reads at once; by default what suits the device."""
    batch_size: int = Field(32, gt=0)
    """Pairs of query and passage that a cross-encoder reads at once."""
    bm25_stemmer: Stemmer | None = None
    """Language of BM25's Snowball stemmer, which needs the extra `stemming`; words stay whole by default."""
    bm25_stop_words: StopWords = "english"
    """Language of the words that BM25 leaves out; `none` keeps all."""
    search: Literal["exact", "ivf", "hnsw"] = "exact"
    """How vectors are searched: exact, or by a FAISS index for very large corpora (extra `faiss`), whose recall is
    measured on a sample and reported."""
    memory_gib: float = Field(1.0, gt=0)
    """Memory that exact search may fill beside the vectors' file."""
    seed: Seed = 0
    """Seed of the teacher `random`."""
    request_texts: int = Field(64, gt=0)
    """Texts in one request to an embeddings URL."""
    request_concurrency: int = Field(4, gt=0)
    """Requests under way at once."""
    request_timeout_s: float = Field(60.0, gt=0)
    """Seconds after which a request counts as lost."""
    request_retries: int = Field(6, ge=0)
    """Times that a request is sent again after the server was busy or failed, waiting longer each time."""

    @property
    def bm25(self) -> BM25Settings:
        """The settings of BM25."""
        return BM25Settings(stemmer=self.bm25_stemmer, stop_words=self.bm25_stop_words)
