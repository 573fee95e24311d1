import pytest

from service.api.negotiation import negotiate
from service.problems import NotAcceptable

OFFERS = ("png", "npy", "json")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "png"),
        ("", "png"),
        ("*/*", "png"),
        ("application/json", "json"),
        ("image/*", "png"),
        ("application/*", "npy"),
        ("application/json;q=0.9, application/x-npy;q=0.5", "json"),
        ("application/x-npy, */*;q=0.1", "npy"),
        ("image/png;q=0, */*", "npy"),
        ("APPLICATION/JSON", "json"),
        ("text/html,application/xhtml+xml,image/webp,*/*;q=0.8", "png"),
    ],
)
def test_accept_chooses_among_the_offers(accept: str | None, chosen: str) -> None:
    assert negotiate(None, accept, OFFERS) == chosen


def test_format_wins_over_accept() -> None:
    assert negotiate("coco", "image/png", ("json", "png")) == "coco"


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0", "image/png;q=x", "nonsense"])
def test_an_accept_that_excludes_all_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="has none of"):
        negotiate(None, accept, OFFERS)
