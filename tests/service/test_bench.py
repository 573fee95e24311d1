import contextlib
import json
import math
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.bench.figures import Figures, figures, quantile
from service.bench.load import BROKEN, GAVE_UP, Answer, Plan, Record
from service.bench.process import BenchError, load, profiler, running
from service.cli import app
from tests.fakes import FakeHouse
from tests.http.serving import Running, photo
from tests.http.serving import running as serving

PEOPLE = 3


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    house = FakeHouse()
    house.detector.people = PEOPLE
    with serving(house) as server:
        yield server


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    (tmp_path / "photo.png").write_bytes(photo(size=(120, 80)))
    return [str(tmp_path / "photo.png")]


def seen(*answers: tuple[float, float, int]) -> Record:
    return Record([Answer(sent, ms, status, 2) for sent, ms, status in answers], [1.0], [], None)


def test_a_closed_loop_counts_people_and_never_sends_before_it_is_answered(
    server: Running, photos: list[str]
) -> None:
    record = load(Plan(server.url, "/pose", photos, 60, clients=2, requests=10, health="/healthz"))
    assert len(record.answers) in (10, 11)  # the other client's last one
    assert {(answer.status, answer.people) for answer in record.answers} == {(200, PEOPLE)}
    assert record.health_ms
    for later, answer in enumerate(record.answers[2:]):
        ended = [past.sent_s + past.ms / 1000 for past in record.answers[: later + 1]]
        assert answer.sent_s >= min(ended)


def test_an_open_loop_sends_at_its_rate_and_then_finds_the_server_recovered(
    server: Running, photos: list[str]
) -> None:
    plan = Plan(
        server.url, "/pose", photos, 60, rate=200, requests=20, within_s=30, recover_ms=30_000
    )
    record = load(plan)
    assert [answer.status for answer in record.answers] == [200] * 20
    assert len(record.lag_ms) == 20
    assert record.recovered_s is not None
    assert record.recovered_s < 30


def test_a_form_carries_the_photo_to_those_who_take_no_raw_body(
    server: Running, photos: list[str]
) -> None:
    record = load(Plan(server.url, "/pose", photos, 60, requests=1, form="image"))
    assert [(answer.status, answer.people) for answer in record.answers] == [(200, PEOPLE)]


def test_refusals_are_told_from_answers(server: Running, photos: list[str]) -> None:
    plan = Plan(server.url, "/pose?no_such=1", photos, 60, requests=2)
    found = figures(plan, load(plan))
    assert (found.sent, found.answered, found.failed) == (2, 0, 2)


def test_a_client_hangs_up_on_a_server_that_never_answers_and_notes_one_that_hangs_up(
    photos: list[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        silent = Plan(url, "/pose", photos, 60, rate=1000, requests=2, within_s=0.05)
        assert [answer.status for answer in load(silent).answers] == [GAVE_UP] * 2
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_hang_up, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        rude = Plan(url, "/pose", photos, 60, rate=1000, requests=2, within_s=30)
        assert [answer.status for answer in load(rude).answers] == [BROKEN] * 2


def _hang_up(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()


def test_rates_leave_out_where_a_run_begins_and_what_ends_after_it() -> None:
    answers = [(0.1 * number, 100.0, 200) for number in range(110)]
    found = figures(Plan("", "", [], 10, clients=1), seen(*answers))
    assert found.photos_s == pytest.approx(10, abs=0.2)
    assert found.people_s == pytest.approx(20, abs=0.4)


def test_a_server_that_answers_only_at_first_has_no_goodput() -> None:
    answers = [(0.1 * number, 50.0, 200 if number < 10 else GAVE_UP) for number in range(100)]
    assert figures(Plan("", "", [], 10, rate=10), seen(*answers)).photos_s == 0


def test_a_run_of_so_many_requests_ends_with_the_last_of_them() -> None:
    answers = [(0.1 * number, 100.0, 200) for number in range(20)]
    found = figures(Plan("", "", [], 60, clients=1, requests=20), seen(*answers))
    assert found.photos_s == pytest.approx(10, rel=0.1)


def test_every_answer_is_counted_once_and_as_what_it_is() -> None:
    record = seen(
        (0, 10, 200), (1, 30, 200), (2, 3, 503), (3, 5, 429), (4, 99, GAVE_UP), (5, 99, 504),
        (6, 1, 500), (7, 1, BROKEN),
    )  # fmt: skip
    found = figures(Plan("", "", [], 10, rate=1), record)
    parts = (found.answered, found.refused, found.late, found.failed)
    assert parts == (2, 2, 2, 2)
    assert found.sent == sum(parts)
    assert (found.p50_ms, found.p99_ms, found.refused_p99_ms) == (10, 30, 5)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1, 100), (0.001, 1)])
def test_a_quantile_is_a_value_that_was_seen(share: float, value: float) -> None:
    assert quantile([float(number) for number in range(100, 0, -1)], share) == value
    assert math.isnan(quantile([], share))


def test_the_command_measures_a_running_server_and_writes_its_figures(
    server: Running, photos: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    options = ["--clients", "1,2", "--rate", "1x,5", "--seconds", "0.3", "--within", "20000"]
    command = ["bench", *photos, "--url", server.url, *options, "--json", str(file)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    written = json.loads(file.read_text())
    assert written["machine"]["engine"] == "fake/cpu"
    assert [run["load"] for run in written["loads"]][:2] == ["1 at once", "2 at once"]
    assert set(written["loads"][0]) == set(Figures.__dataclass_fields__)
    assert all(run["answered"] == run["sent"] > 0 for run in written["loads"])
    for run in written["loads"]:
        assert run["load"] in result.stdout


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--clients", "many"], 2, "--clients: 'many'"),
        (["--rate", "fast"], 2, "--rate: 'fast'"),
        (["--rate", "0"], 2, "--rate: '0'"),
        (["--rate", "1,0.0x"], 2, "--rate: '0.0x'"),
        (["--url", "here"], 2, "--url: 'here' is not http://host:port"),
        (["--url", "http://127.0.0.1:99999"], 2, "--url: Port out of range"),
        (
            ["--url", "http://127.0.0.1:1"],
            3,
            "http://127.0.0.1:1 cannot be reached: Connection refused",
        ),
        (["--profile", "x.png"], 1, ".svg, .json, .txt"),
        (["--url", "http://127.0.0.1:9", "--profile", "x.svg"], 2, "leave out --url"),
        (["--json", "/no/such/folder/x.json"], 2, "there is no folder"),
    ],
)
def test_what_is_wrong_with_the_command_is_said_in_a_line(
    options: list[str], code: int, words: str
) -> None:
    result = CliRunner().invoke(app, ["bench", *options])
    assert (result.exit_code, words in result.output) == (code, True), result.output


@pytest.mark.parametrize("form", ["coco", "png"])
def test_answers_that_do_not_tell_people_are_measured_too(
    server: Running, photos: list[str], form: str
) -> None:
    options = ["--clients", "1", "--seconds", "0.2", "--query", f"format={form}"]
    result = CliRunner().invoke(app, ["bench", *photos, "--url", server.url, *options])
    assert result.exit_code == 0, result.output
    assert "1 at once" in result.stdout


def test_a_multiple_of_no_closed_loop_is_no_rate(server: Running, photos: list[str]) -> None:
    options = ["--clients", "", "--rate", "2x"]
    result = CliRunner().invoke(app, ["bench", *photos, "--url", server.url, *options])
    assert (result.exit_code, "--rate 2x: no closed loop" in result.stderr) == (1, True)


def test_a_server_that_is_not_ready_is_not_measured() -> None:
    with serving(FakeHouse()) as server:
        server.state.gate.state = "leaving"
        result = CliRunner().invoke(app, ["bench", "--url", server.url])
    assert (result.exit_code, "is not ready" in result.stderr) == (3, True), result.output


def test_a_server_that_ends_before_it_is_ready_is_an_error_with_its_last_words() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no weights')"]
    with pytest.raises(BenchError, match="no weights"), running(command, "http://127.0.0.1:9", "/"):
        pass


def test_the_profiler_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="pip install py-spy"):
        profiler(tmp_path / "profile.svg")


def test_an_interrupt_leaves_no_process_behind() -> None:
    command = [sys.executable, "-c", "from service.cli import app; app()", "bench"]
    bench = subprocess.Popen(
        [*command, "--clients", "1,1", "--seconds", "0.2", "--rate", "1", "--within", "60000"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        # As at a terminal: a shell's background jobs, this suite perhaps among them, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert bench.stdout
    with bench:
        assert "pose-s" in bench.stdout.readline()
        started = _children(bench.pid)
        assert started
        bench.send_signal(signal.SIGINT)
        assert bench.wait(30) == 130
    assert not [pid for pid in started if _alive(pid)]


def _children(parent: int) -> list[int]:
    found = []
    for task in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(task.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(task.parent.name))
    return found


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # dead, and whoever has inherited it has not looked yet
