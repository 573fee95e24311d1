"""Many more random schedules than the suite has time for: `python -m tests.bench.schedules`."""

from __future__ import annotations

import argparse
import logging
import time

from hypothesis import HealthCheck, given, settings

from tests.service.schedules import SCHEDULES, check_schedule


def main() -> None:
    """Play them; the first that fails is shrunk and shown."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.schedules", description=__doc__)
    parser.add_argument("--examples", type=int, default=100_000)
    examples = parser.parse_args().examples
    logging.disable(logging.CRITICAL)  # failing on purpose is most of what they do
    began = time.perf_counter()
    quiet = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    given(SCHEDULES)(quiet(check_schedule))()
    print(f"{examples} schedules, everyone answered once, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
