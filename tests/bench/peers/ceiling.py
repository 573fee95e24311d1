"""The same job without any server, in one process: what the machine can give.

`python -m tests.bench.peers.ceiling SECONDS BATCH PHOTO…`: loops in 1 and 2 threads over batches of
so many photos; prints the people a second of the better, and the milliseconds of a batch in one.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import chain, cycle, repeat
from pathlib import Path
from statistics import median

from tests.bench.peers.job import Job, decode


def batches(photos: Sequence[bytes], size: int) -> list[list[bytes]]:
    """Every photo as often as any other, in turn."""
    turn: Iterator[bytes] = chain.from_iterable(repeat(photos))
    return [[next(turn) for _ in range(size)] for _ in photos]


def loop(job: Job, work: Sequence[Sequence[bytes]], seconds: float) -> tuple[int, list[float]]:
    people, times = 0, []
    began = time.perf_counter()
    for batch in cycle(work):
        start = time.perf_counter()
        if start - began > seconds:
            break
        found = job.people([decode(data) for data in batch])
        for each in found:
            json.dumps(job.body(each))
        times.append((time.perf_counter() - start) * 1000)
        people += sum(map(len, found))
    return people, times


def loops(
    job: Job, work: Sequence[Sequence[bytes]], seconds: float, threads: int
) -> tuple[float, float]:
    """People a second of all threads, and the median milliseconds of a batch."""
    done: list[tuple[int, list[float]]] = []
    crew = [
        threading.Thread(target=lambda: done.append(loop(job, work, seconds)))
        for _ in range(threads)
    ]
    began = time.perf_counter()
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    took = time.perf_counter() - began
    return sum(people for people, _ in done) / took, median(ms for _, times in done for ms in times)


def main() -> None:
    seconds, size, *files = sys.argv[1:]
    job = Job.load()
    work = batches([Path(file).read_bytes() for file in files], int(size))
    loop(job, work, 0.2)
    one, ms = loops(job, work, float(seconds) / 2, 1)
    two, _ = loops(job, work, float(seconds) / 2, 2)
    print(json.dumps({"people_s": max(one, two), "one_loop": one, "two_loops": two, "ms": ms}))


if __name__ == "__main__":
    main()
