import os
import re
import signal
import subprocess
import sys
from pathlib import Path


def test_the_bench_measures_every_head_and_load_of_a_running_server() -> None:
    short = ["--repeats", "1", "--seconds", "0.5", "--samples", "32"]
    bench = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.serve", *short],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        told, errors = bench.communicate()
    except BaseException:
        os.killpg(bench.pid, signal.SIGKILL)  # its server and clients with it
        raise
    assert bench.returncode == 0, errors
    for head in ("simcc", "nerpe", "heatmap"):
        assert re.search(rf"^{head} +\d+\.\d +\d+\.\d$", told, re.M), told
        assert re.search(rf"^{head} +32( +\d+\.\d){{3}}$", told, re.M), told
    for clients in (1, 4, 16):
        assert re.search(rf"^ +{clients} +\S", told, re.M), told
    assert re.search(r"^time to ready +\d", told, re.M)
    assert float(re.findall(r"peak RSS +(\d+) MB", told)[-1]) > 50
