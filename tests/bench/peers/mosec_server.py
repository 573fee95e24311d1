"""mosec, told by MOSEC_PORT and its like: decoding in processes of their own, then batches.

On the simulated device one stage does both: small crops cost more to pass on than to decode.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from mosec import Server, Worker

from tests.bench.peers.job import (
    PHOTOS_A_BATCH,
    SIMULATED,
    WAIT_MS,
    WITHIN_MS,
    Image,
    Job,
    decode,
)


class Decode(Worker):  # type: ignore[misc]
    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Image:
        return decode(data)


class Pose(Worker):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.job = Job.load()

    def deserialize(self, data: bytes) -> Image:  # where it is the only stage
        return decode(data)

    def forward(self, photos: Sequence[Image]) -> list[dict[str, Any]]:
        return [self.job.body(people) for people in self.job.people(photos)]

    def serialize(self, data: dict[str, Any]) -> bytes:
        return json.dumps(data).encode()


if __name__ == "__main__":
    os.environ["MOSEC_TIMEOUT"] = str(WITHIN_MS)
    server = Server()
    if not SIMULATED or os.environ.get("BENCH_STAGES"):
        server.append_worker(Decode, num=2, route="/pose")
    server.append_worker(Pose, max_batch_size=PHOTOS_A_BATCH, max_wait_time=WAIT_MS, route="/pose")
    server.run()
