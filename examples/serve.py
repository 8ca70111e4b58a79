"""Answer over HTTP where users go next, visit by visit: POST a list of visits, get the next places of their users.

    python -m pip install fastapi uvicorn
    python examples/serve.py                                     # the checkpoint of the repository, in its own city
    python examples/serve.py my-checkpoint
    curl localhost:8000/visits -H 'content-type: application/json' \\
        -d '[{"user_id": "7", "time": "2024-03-01T08:30:00+01:00", "location_id": "simville-012"}]'

What a user's earlier visits said is kept between requests. One process serves one city; see docs/how-to/serve.md.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from fastapi import FastAPI, HTTPException
from pydantic import AwareDatetime, BaseModel

from hf_mobility import NextLocationPipeline

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "samoe-small"
MAX_VISITS = 10_000  # of a request


class Visit(BaseModel):
    user_id: str
    time: AwareDatetime
    location_id: str


class Answer(BaseModel):
    user_id: str
    location_ids: list[str]
    probabilities: list[float]
    expected_gap_hours: float


def make_app(checkpoint: str | Path = CHECKPOINT, *, max_users: int = 10_000) -> FastAPI:
    pipe = NextLocationPipeline.from_pretrained(checkpoint)
    session, app = pipe.session(max_users=max_users), FastAPI(title="Next places")

    @app.post("/visits")
    def visits(new: list[Visit], top_k: int = 5) -> list[Answer]:  # no `async`: requests are answered by threads
        if not 1 <= len(new) <= MAX_VISITS:
            raise HTTPException(422, f"send 1 to {MAX_VISITS:,} visits, not {len(new)}")
        columns = {name: [getattr(visit, name) for visit in new] for name in Visit.model_fields}
        columns["time"] = [_seconds(time) for time in columns["time"]]
        try:
            made = session.answer(columns, top_k=top_k)
        except ValueError as error:  # one sentence about the visits
            raise HTTPException(422, str(error)) from error
        rows = zip(made.user_id, made.location_id.tolist(), made.probability.tolist(), made.expected_gap / 3600)
        return [Answer(user_id=u, location_ids=i, probabilities=p, expected_gap_hours=g) for u, i, p, g in rows]

    @app.get("/health")
    def health() -> dict[str, int]:
        return {"users": len(session), "bytes": len(session) * session.bytes_per_user}

    return app


def _seconds(time: datetime) -> int:
    return int(time.timestamp())


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(make_app(*sys.argv[1:2]), port=8000)
