import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from models.bundle import BUNDLES, load_bundle
from models.engines import load_engine
from models.pose import PoseModel

DATA = Path(__file__).parents[2] / "shared" / "data"

# Which runtime is fastest here is nothing that tests of other things should find out or depend on.
os.environ.setdefault("SUBPOSE_ENGINE", "onnxruntime")

# Nor what its user has imported.
os.environ["XDG_DATA_HOME"] = os.devnull

# How long an example takes says more of a busy machine than of the code.
settings.register_profile("subpose", deadline=None)
settings.load_profile("subpose")


@pytest.fixture(scope="session")
def data() -> Path:
    if not DATA.is_dir():
        pytest.skip("the photos and models are not here: ../shared/data, beside the repository")
    return DATA


@pytest.fixture(scope="session")
def model() -> PoseModel:
    """The committed one, loaded once for all who only ask it."""
    bundle = load_bundle(BUNDLES / "pose-s")
    return PoseModel(bundle, load_engine(bundle, threads=1))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Of torch's arithmetic, so that sums have one order and the machine has other cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
