"""What a server process holds of the machine's memory, with the committed weights."""

import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from PIL import Image, ImageOps

from service.doctor import SAMPLE
from service.settings import Settings
from tests.http.test_lifecycle import process

MOST_MB = 700
SPARE_MB = 100


def held_mb(pid: int, which: str) -> float:
    """VmRSS: now; VmHWM: at the peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = re.findall(which + r":\s+(\d+) kB", status)
    return int(kilobytes) * 1024 / 1e6


def test_lattices_and_large_heatmaps_stay_within_the_memory_of_a_small_machine() -> None:
    with Image.open(SAMPLE) as sample:
        fitted = ImageOps.fit(sample, (640, 480), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    fitted.save(file, "JPEG", quality=90)
    with process(["-m", "service", "serve"]) as server:
        url = server.until(r"ready on (http://\S+)").group(1)
        with httpx.Client(base_url=url, timeout=120, verify=False) as client:
            photo = file.getvalue()
            answer = client.post("/pose?head=simcc,nerpe,heatmap&max_people=4", content=photo)
            lattice = "/pose?head=nerpe&decode=standard&resolution=256&max_people=1"
            assert client.post(lattice, content=photo).status_code == 200
            kept = answer.json()["id"]
            for head in ("simcc", "heatmap"):
                wish = {"id": kept, "head": head, "resolution": 2048, "keypoint": "max"}
                assert client.get("/heatmap", params=wish).status_code == 200
            every = {"id": kept, "head": "simcc", "resolution": 1024, "keypoint": "all"}
            assert len(client.get("/heatmap", params={**every, "format": "npy"}).content) > 5e7
        assert held_mb(server.process.pid, "VmHWM") < MOST_MB


def test_two_large_pictures_with_alpha_hold_what_they_are_budgeted_and_give_it_back() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (7000, 7000), (90, 120, 150, 128)).save(file, "PNG", compress_level=1)
    with process(["-m", "service", "serve"]) as server:
        url = server.until(r"ready on (http://\S+)").group(1)
        pid = server.process.pid
        before = held_mb(pid, "VmRSS")
        with httpx.Client(base_url=url, timeout=120, verify=False) as client:

            def post(_: int) -> int:
                return client.post("/pose", content=file.getvalue()).status_code

            with ThreadPoolExecutor(2) as pool:
                assert list(pool.map(post, range(4))) == [200] * 4
        assert held_mb(pid, "VmHWM") < before + Settings().decoded_bytes / 1e6 + SPARE_MB
        assert held_mb(pid, "VmRSS") < before + SPARE_MB
