import re
import subprocess
import sys
from pathlib import Path


def test_the_bench_measures_every_head_and_load_of_a_running_server() -> None:
    short = ["--repeats", "1", "--seconds", "0.5", "--samples", "32"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.serve", *short],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for head in ("simcc", "nerpe", "heatmap"):
        assert re.search(rf"^{head} +\d+\.\d +\d+\.\d$", done.stdout, re.M), done.stdout
        assert re.search(rf"^{head} +32( +\d+\.\d){{3}}$", done.stdout, re.M), done.stdout
    for clients in (1, 4, 16):
        assert re.search(rf"^ +{clients} +\S", done.stdout, re.M), done.stdout
    assert re.search(r"^time to ready +\d", done.stdout, re.M)
    assert float(re.findall(r"peak RSS +(\d+) MB", done.stdout)[-1]) > 50
