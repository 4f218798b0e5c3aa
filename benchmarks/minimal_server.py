"""The embedding server that people write: the peer of `serving.py`.

python benchmarks/minimal_server.py MODEL PORT
"""

import sys


def serve(name: str, port: int) -> None:
    """Serve a model."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer

    app, model = FastAPI(), SentenceTransformer(name)

    class Asked(BaseModel):
        input: list[str]
        model: str = ""

    @app.get("/ready")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/embeddings")
    def embeddings(asked: Asked) -> dict[str, list[dict[str, object]]]:
        vectors = model.encode(asked.input, normalize_embeddings=True)
        return {"data": [{"index": place, "embedding": vector.tolist()} for place, vector in enumerate(vectors)]}

    uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
