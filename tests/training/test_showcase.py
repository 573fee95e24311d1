from pathlib import Path

import pytest

from training.errors import DataError
from training.showcase import PHOTOS, credits_of

pytestmark = pytest.mark.data


def test_every_photo_that_is_shown_is_credited(data: Path) -> None:
    credits_ = credits_of(data / "demo")
    assert len(credits_) == len(PHOTOS) == 3
    assert credits_[0].photo == "COCO val2017 image 281759"
    assert credits_[0].page == "https://www.flickr.com/photo.gne?id=9546010205"


@pytest.mark.parametrize("photo", ["coco_000000000086.jpg", "camera.jpg", "holiday.jpg"])
def test_a_photo_under_other_terms_is_refused(data: Path, photo: str) -> None:
    with pytest.raises(DataError, match=photo):
        credits_of(data / "demo", [photo])
