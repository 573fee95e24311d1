import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.bench.command import finite
from service.bench.load import Plan
from service.doctor import SAMPLE
from tests.bench.compare import Extent, fields, measure, one_crop
from tests.bench.faults import poison
from tests.bench.peers.contenders import OURS
from tests.bench.peers.job import Job, decode
from tests.bench.report import BEGIN, END, write_report
from tests.fakes import FakeHouse
from tests.http.serving import encoded, pixels, running

TINY = Extent(1, (2,), (1,), {"device": 0.3}, 60)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (device,) = fields(tmp_path_factory.mktemp("device"), ["device"])
    seconds = {"machine": {"cores": "2"}, "quick": True, "seconds": 1.0}
    whole: dict[str, Any] = finite({**seconds, "fields": {"device": measure(device, TINY, [OURS])}})
    return whole


def test_this_service_stands_the_comparison_on_the_simulated_device(
    result: dict[str, Any],
) -> None:
    seen = result["fields"]["device"]["servers"][OURS]
    assert seen["people"] == [1]
    assert seen["poison"] == {"good": 75, "lost": 0}
    assert seen["closed"]["2"]["people_s"] > 0
    assert seen["open"]["1"]["sent"] > 0


def test_the_report_puts_tables_and_a_plot_on_its_page(
    result: dict[str, Any], tmp_path: Path
) -> None:
    page = tmp_path / "bench.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_report(result, page)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert f"| {OURS} |" in text
    assert "old" not in text
    assert json.loads((tmp_path / "bench" / "peers.json").read_text()) == result
    assert pixels((tmp_path / "bench" / "peers.png").read_bytes()).std() > 0


def test_the_docs_page_has_the_reports_marks() -> None:
    text = (Path(__file__).parents[2] / "docs/bench.md").read_text()
    assert text.index(BEGIN) < text.index(END)


def test_the_peers_job_finds_in_a_batch_whom_it_finds_in_each_photo() -> None:
    job = Job.load()
    sample = decode(SAMPLE.read_bytes())
    alone = [job.body(people) for people in job.people([sample])]
    together = [job.body(people) for people in job.people([sample, sample[:, ::-1]])]
    assert len(alone[0]["people"]) > 1
    assert [len(body["people"]) for body in together[:1]] == [len(alone[0]["people"])]
    for one, other in zip(alone[0]["people"], together[0]["people"], strict=True):
        assert one["box"]["x"] == pytest.approx(other["box"]["x"], abs=0.1)


def test_the_crop_that_is_posted_has_the_size_that_others_measured_with() -> None:
    assert len(one_crop()) == pytest.approx(36_900, rel=0.05)


def test_poison_counts_the_neighbours_that_were_not_answered(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encoded(Image.new("RGB", (60, 80)), "JPEG"))
    with running(FakeHouse()) as server:
        kept = poison(Plan(server.url, "/pose", [str(photo)], 1), rounds=1, at_once=4)
        lost = poison(Plan(server.url, "/nowhere", [str(photo)], 1), rounds=1, at_once=4)
    assert (kept.good, kept.lost) == (3, 0)
    assert (lost.good, lost.lost) == (3, 3)
