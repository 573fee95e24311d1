import re
import subprocess
import sys
from pathlib import Path


def test_the_bench_of_refusals_tells_what_both_sides_pay_for_each_kind() -> None:
    command = [sys.executable, "-m", "tests.bench.refusals", "--count", "320", "--rate", "400"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "one connection for many", "a connection each", "at 400 a second",
    ]  # fmt: skip
    told = [tuple(map(int, re.findall(r"(\d+) us", line))) for line in lines]
    # A kernel may count processor time in ticks of 10 ms, of which a kind alone may see none.
    server, clients = map(sum, zip(*told, strict=True))
    assert server > 0
    assert clients > 0
