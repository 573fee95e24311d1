"""A plain FastAPI handler: each request runs the sessions itself, in the thread pool."""

from __future__ import annotations

import json
import sys

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool

from tests.bench.peers.job import Job, decode

app = FastAPI()
job = Job.load()


@app.post("/pose")
async def pose(request: Request) -> Response:
    return await run_in_threadpool(answer, await request.body())


def answer(data: bytes) -> Response:
    try:
        photo = decode(data)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    (people,) = job.people([photo])
    return Response(json.dumps(job.body(people)), media_type="application/json")


@app.get("/healthz")
async def healthz() -> dict[str, bool]:
    return {"ok": True}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", loop="uvloop", http="httptools")
