"""LitServe, batching requests in its worker.

It compares annotations with classes, so they are not postponed here.
"""

import sys
from collections.abc import Sequence
from typing import Any

import litserve
from fastapi import Request

from tests.bench.peers.job import PHOTOS_A_BATCH, WAIT_MS, WITHIN_MS, Image, Job, decode


class Pose(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.job = Job.load()

    def decode_request(self, request: Request) -> Image:
        return decode(request["image"].file.read())  # a form, for LitServe has parsed it

    def batch(self, inputs: Sequence[Image]) -> Sequence[Image]:
        return inputs  # photos have sizes of their own

    def unbatch(self, output: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        return output

    def predict(self, photos: Sequence[Image]) -> list[dict[str, Any]]:
        return [self.job.body(people) for people in self.job.people(photos)]

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    api = Pose(max_batch_size=PHOTOS_A_BATCH, batch_timeout=WAIT_MS / 1000, api_path="/pose")
    server = litserve.LitServer(api, accelerator="cpu", timeout=WITHIN_MS / 1000)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
