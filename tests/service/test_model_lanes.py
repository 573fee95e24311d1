from contextlib import ExitStack

import numpy as np
import pytest

from models.bundle import BUNDLES, load_bundle
from models.geometry import Box
from service.catalog import ServedDetector
from service.model_lanes import detector_lane
from service.scheduler import Scheduler
from service.work import Photo
from tests.fakes import FakeDetector


@pytest.mark.parametrize("device", ["cuda:0", "cpu"])
def test_photos_of_different_requests_share_a_pass(device: str) -> None:
    detector = FakeDetector(device=device)
    lane = detector_lane(ServedDetector("n", detector, load_bundle(BUNDLES / "person-n")))
    scheduler = Scheduler(8, clock=lambda: 0.0)
    with ExitStack() as inside:
        visits = [inside.enter_context(scheduler.admit(1.0)) for _ in range(3)]
        photos = [Photo(np.zeros((90, width, 3), np.uint8)) for width in (60, 120, 180)]
        futures = [
            scheduler.submit(visit, lane, [photo])
            for visit, photo in zip(visits, photos, strict=True)
        ]
        scheduler.device.step()
        found = [future.result(timeout=0).results for future in futures]
    assert detector.calls == 1
    # To each request the people of its own photo.
    whole = [((Box(0, 0, width, 90, 0.9),),) for width in (60, 120, 180)]
    assert [tuple(results) for results in found] == whole
