"""The embedding server that people write: the peer of `serving.py`.

python benchmarks/minimal_server.py MODEL PORT
"""

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

app = FastAPI()
model = SentenceTransformer(sys.argv[1])


class Asked(BaseModel):
    """A request."""

    input: list[str]
    model: str = ""


@app.get("/ready")
def ready() -> dict[str, str]:
    """Answer when the model is there."""
    return {"status": "ready"}


@app.post("/v1/embeddings")
def embeddings(asked: Asked) -> dict[str, list[dict[str, object]]]:
    """Answer with vectors."""
    vectors = model.encode(asked.input, normalize_embeddings=True)
    return {"data": [{"index": place, "embedding": vector.tolist()} for place, vector in enumerate(vectors)]}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
