"""Several processes that train together, and the arithmetic they train in."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.networks.pose import PoseNetwork, PoseShape
from tests.training.sets import row, write_set
from training import losses as losses_module
from training import run as module
from training.config import Experiment, load_experiment
from training.errors import TrainingError
from training.order import batches
from training.precision import Precision, autocast, check_precision
from training.run import Run, synchronised
from training.start import start_network
from training.train import train, training_data

pytestmark = pytest.mark.usefixtures("one_thread")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
# Nobody's joints leave the crop: each process then counts as many as any other. And no batch norm
# learns: that of a trunk that is trained folded is frozen, these heads have none.
TINY = """
name = "{name}"
runs = {runs}
threads = 1
workers = 0
checkpoint_every = 2
warm_up = {{ passes = 0 }}
shape = {{ size = [64, 64], heads = ["simcc", "heatmap"] }}
augmentation = {{ scale = 0, rotation = 0, shift = 0, half_body = 0, cutout = 0 }}
serving = {{ data = "painted", start = "nothing" }}
dev = {{ annotations = {file}, images = {images} }}

[[train]]
annotations = {file}
images = {images}
split = "all"

[schedule]
steps = 3
batch = 4
parts = {parts}
ramp = 1
precision = "{precision}"
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """An experiment's file, of nine painted people: two batches of four are an epoch."""
    file, images = write_set(tmp_path, [row(n) for n in range(1, 10)], photos=9)

    def build(name: str, parts: int = 1, precision: Precision = "fp32") -> Path:
        config = tmp_path / f"{name}.toml"
        paths = {
            key: json.dumps(str(path))
            for key, path in (("runs", tmp_path), ("file", file), ("images", images))
        }
        config.write_text(TINY.format(name=name, parts=parts, precision=precision, **paths))
        return config

    return build


# Seconds, but minutes where others have the processor.
@pytest.mark.timeout(1200)
def test_two_processes_end_as_one_does_on_the_same_batches(write: Callable[..., Path]) -> None:
    # Each has a part of two people's gradients to add up before they are shared.
    config = write("two", parts=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    try:
        done = subprocess.run(
            [*command, "-m", "training", "train", str(config)],
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"not done after {late.timeout} s: {(late.stderr or b'')[-3000:]!r}")
    assert done.returncode == 0, done.stderr[-3000:]
    two = torch.load(load_experiment(config).last, weights_only=True)
    one = torch.load(train(load_experiment(write("one"))), weights_only=True)
    assert two["step"] == one["step"] == 3
    torch.manual_seed(0)
    start = start_network(load_experiment(config)).state_dict()
    for name, value in one["network"].items():
        np.testing.assert_allclose(two["network"][name], value, atol=2e-5, err_msg=name)
    moved = max(float((one["network"][n] - start[n]).abs().max()) for n in start)
    assert moved > 50 * 2e-5


def test_a_batch_that_processes_cannot_share_evenly_is_refused(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load_experiment(write("odd", parts=2))
    monkeypatch.setattr(module, "world", lambda: 3)
    with pytest.raises(TrainingError, match="a batch of 4 has no 6 equal shares"):
        Run(start_network(experiment), experiment, CPU)


def test_batch_norms_take_statistics_over_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    network = PoseNetwork(PoseShape(size=(64, 64), cells=(4, 4)))
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    names = list(network.state_dict())
    assert norms
    assert synchronised(network, CUDA) is network  # alone
    monkeypatch.setattr(module, "world", lambda: 2)
    assert synchronised(network, CPU) is network
    converted = synchronised(network, CUDA)
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in converted.modules()) == len(norms)
    # Its checkpoints are those of any other network.
    assert list(converted.state_dict()) == names


# Arithmetic


def _first_step(experiment: Experiment) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients."""
    torch.manual_seed(0)
    run = Run(start_network(experiment), experiment, CPU)
    batch = next(batches(experiment, training_data(experiment), 0))
    losses = run._accumulate(batch, torch.Generator().manual_seed(0))
    gradients = {n: p.grad for n, p in run.network.named_parameters() if p.grad is not None}
    return losses, gradients


def test_bf16_runs_the_network_alone_in_fewer_bits(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.dtype, bool]] = []
    whole = losses_module.divergence

    def divergence(logits: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401
        seen.append((logits.dtype, torch.is_autocast_enabled("cpu")))
        return whole(logits, *rest)

    exact, own = _first_step(load_experiment(write("full")))
    monkeypatch.setattr(losses_module, "divergence", divergence)
    close, rough = _first_step(load_experiment(write("half", precision="bf16")))
    assert seen == [(torch.float32, False)] * 2
    assert own.keys() == rough.keys()
    for name, loss in exact.items():
        assert close[name].dtype == torch.float32
        assert close[name].item() == pytest.approx(loss.item(), rel=0.02)
    for name in ("simcc.x.weight", "heatmap.joints.weight"):
        assert rough[name].dtype == torch.float32
        similarity = torch.cosine_similarity(rough[name].flatten(), own[name].flatten(), dim=0)
        assert not torch.equal(rough[name], own[name]), name
        assert similarity > 0.98, name


def test_a_run_in_bf16_keeps_its_weights_in_fp32(write: Callable[..., Path]) -> None:
    state = torch.load(train(load_experiment(write("half", precision="bf16"))), weights_only=True)
    for part in (state["network"], state["ema"]):
        assert {value.dtype for value in part.values()} <= {torch.float32, torch.int64}
    assert all(torch.isfinite(value).all() for value in state["network"].values())


def test_arithmetic_that_the_device_lacks_is_refused(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match='"fp16" needs CUDA and this is cpu: choose "bf16"'):
        train(load_experiment(write("quarter", precision="fp16")))
    for precision in ("fp32", "bf16"):
        check_precision(precision, CPU)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old GPU")
    with pytest.raises(TrainingError, match="an old GPU has no bf16"):
        check_precision("bf16", CUDA)


def test_full_precision_is_no_autocast() -> None:
    with autocast("fp32", CPU):
        assert not torch.is_autocast_enabled("cpu")
    with autocast("bf16", CPU):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
