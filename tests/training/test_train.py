import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.networks.pose import PoseNetwork, PoseShape
from tests.training.sets import row, write_set
from training import order as module
from training import run as stepping
from training.config import (
    DataSource,
    Experiment,
    HeadPhase,
    Schedule,
    Serving,
    load_experiment,
)
from training.data.examples import Augmentation, set_epoch
from training.errors import DataError
from training.heads_alone import train_heads
from training.losses import pose_losses
from training.order import batches
from training.progress import console
from training.run import Run
from training.start import averaged_network, start_network
from training.train import train, training_data

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SHAPE = PoseShape(size=(64, 64), cells=(4, 4), nerpe_width=16, nerpe_hidden=(16, 8))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    """Five people: two batches of two an epoch, so that three steps end within the second."""
    folder = tmp_path_factory.mktemp("people")
    file, images = write_set(folder, [row(n) for n in range(1, 6)], photos=5)
    return DataSource(annotations=file, images=images, split="all")


@pytest.fixture
def configure(tmp_path: Path, people: DataSource) -> Callable[..., Experiment]:
    def build(**changes: Any) -> Experiment:  # noqa: ANN401
        fields: dict[str, Any] = {
            "name": "tiny",
            "runs": tmp_path,
            "threads": 1,
            "workers": 0,
            "train": [people],
            "dev": people,
            "shape": SHAPE,
            "warm_up": HeadPhase(passes=0),
            "schedule": Schedule(steps=3, batch=2, ramp=1),
            "serving": Serving(data="painted", start="nothing"),
            "checkpoint_every": 1,
        }
        return Experiment(**(fields | changes))

    return build


def _equal(a: Any, b: Any) -> bool:  # noqa: ANN401
    """Two checkpoints, to the last bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


class _PowerCutError(Exception):
    pass


def _fail_at(step: int) -> Callable[..., Any]:
    calls = 0

    def losses(*arguments: Any, **how: Any) -> Any:  # noqa: ANN401
        nonlocal calls
        calls += 1
        if calls == step:
            raise _PowerCutError
        return pose_losses(*arguments, **how)

    return losses


def test_a_run_that_was_cut_off_in_mid_epoch_ends_as_one_that_was_not(
    configure: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = Schedule(steps=4, batch=2, ramp=1)
    whole = train(configure(name="whole", schedule=schedule))
    cut = configure(name="cut", schedule=schedule)
    monkeypatch.setattr(stepping, "pose_losses", _fail_at(4))
    with pytest.raises(_PowerCutError):
        train(cut)
    monkeypatch.undo()
    # Two steps are an epoch.
    assert torch.load(cut.last, weights_only=True)["step"] == 3
    again = train(cut)
    first, second = (torch.load(path, weights_only=True) for path in (whole, again))
    assert first["step"] == 4
    assert _equal(first, second)
    for experiment in (configure(name="whole"), cut):
        with (experiment.folder / "log.csv").open() as file:
            assert [line[0] for line in csv.reader(file)] == ["step", "1", "2", "3", "4"]
    # A run that has ended is not begun again.
    assert _equal(torch.load(train(cut), weights_only=True), first)


def test_a_step_that_is_taken_again_is_in_the_log_once(
    configure: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = configure(schedule=Schedule(steps=4, batch=2, ramp=1), checkpoint_every=2)
    monkeypatch.setattr(stepping, "pose_losses", _fail_at(4))
    with pytest.raises(_PowerCutError):
        train(experiment)
    monkeypatch.undo()
    log = experiment.folder / "log.csv"
    assert [line.split(",")[0] for line in log.read_text().splitlines()] == ["step", "1", "2", "3"]
    train(experiment)
    assert [line.split(",")[0] for line in log.read_text().splitlines()] == [
        "step", "1", "2", "3", "4",
    ]  # fmt: skip


def test_a_network_of_smaller_crops_starts_from_a_larger_ones_average(
    configure: Callable[..., Experiment],
) -> None:
    larger = configure(name="larger")
    trained = averaged_network(larger, [train(larger)]).state_dict()
    small = configure(shape=replace(SHAPE, size=(32, 32)), start=larger.last)
    with console.capture() as said:
        start = start_network(small).state_dict()
    assert "so begun anew: nerpe.zoom" in " ".join(said.get().split())
    same = {
        name for name in start.keys() & trained.keys() if torch.equal(start[name], trained[name])
    }
    assert {name for name in start if name.startswith(("encoder.", "heatmap."))} <= same
    # SimCC's linear layers are as wide as the crop.
    assert any(name.startswith("simcc.") for name in start.keys() - same)


def test_a_checkpoint_of_another_encoder_is_refused(configure: Callable[..., Experiment]) -> None:
    larger = configure(name="larger")
    train(larger)
    other = configure(shape=replace(SHAPE, encoder="timm:mobilenetv2_100:16"), start=larger.last)
    with pytest.raises(DataError, match="of another encoder"):
        start_network(other)


def test_training_moves_every_part_and_the_average_follows(
    configure: Callable[..., Experiment],
) -> None:
    experiment = configure()
    torch.manual_seed(experiment.seed)
    start = start_network(experiment).state_dict()
    state = torch.load(train(experiment), weights_only=True)
    for part in ("encoder", "simcc", "heatmap", "nerpe"):
        names = [n for n in start if n.startswith(part) and n.endswith("weight")]
        assert any(not torch.equal(start[n], state["network"][n]) for n in names), part
    averaged = averaged_network(experiment, [experiment.last])
    assert not averaged.training
    assert _equal(dict(averaged.state_dict()), dict(state["ema"]))
    name = "heatmap.joints.weight"
    moved = state["network"][name] - start[name]
    followed = state["ema"][name] - start[name]
    assert 0 < followed.norm() < moved.norm()


def test_several_checkpoints_are_averaged(
    configure: Callable[..., Experiment], tmp_path: Path
) -> None:
    experiment = configure()
    train(experiment)
    state = torch.load(experiment.last, weights_only=True)
    raw = tmp_path / "raw.pt"
    torch.save({"ema": state["network"]}, raw)
    both = averaged_network(experiment, [experiment.last, raw]).state_dict()
    for name, value in both.items():
        expected = (state["ema"][name].double() + state["network"][name].double()) / 2
        torch.testing.assert_close(value, expected.to(value.dtype))


def test_a_checkpoint_of_another_shape_is_refused_by_its_field(
    configure: Callable[..., Experiment],
) -> None:
    experiment = configure()
    train(experiment)
    # Its tensors are as large.
    other = configure(shape=replace(SHAPE, matrix="legacy"))
    for go_on in (train, lambda run: averaged_network(run, [run.last])):
        with pytest.raises(
            DataError, match=r"with matrix = udp, the experiment's has matrix = leg"
        ):
            go_on(other)
    state = torch.load(experiment.last, weights_only=True)
    del state["shape"]  # as older ones are
    torch.save(state, experiment.last)
    train(other)


def test_the_losses_fall(configure: Callable[..., Experiment]) -> None:
    still = Augmentation(scale=0, rotation=0, shift=0, flip=False, half_body=0, colour=0, cutout=0)
    schedule = Schedule(steps=14, batch=2, ramp=1, head_rate=3e-3, encoder_rate=1e-3)
    experiment = configure(augmentation=still, schedule=schedule)
    train(experiment)
    with (experiment.folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    for head in ("simcc", "heatmap", "nerpe"):
        values = [float(line[head]) for line in rows]
        assert sum(values[-4:]) < 0.9 * sum(values[:4]), head


def test_a_checkpoint_that_was_cut_off_leaves_the_last_one(
    configure: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = configure()
    experiment.folder.mkdir(parents=True)
    run = Run(start_network(experiment), experiment, CPU)
    run.save(experiment.last)
    before = experiment.last.read_bytes()

    def half(state: object, path: Path) -> None:
        path.write_bytes(before[: len(before) // 2])
        raise _PowerCutError

    monkeypatch.setattr(torch, "save", half)
    run.step = 1
    with pytest.raises(_PowerCutError):
        run.save(experiment.last)
    assert experiment.last.read_bytes() == before
    monkeypatch.undo()
    run.save(experiment.last)
    assert torch.load(experiment.last, weights_only=True)["step"] == 1
    assert [path.name for path in experiment.folder.iterdir()] == ["last.pt"]


def test_the_warm_up_moves_the_heads_alone(configure: Callable[..., Experiment]) -> None:
    experiment = configure(warm_up=HeadPhase(passes=2, epochs=2, batch=2))
    network = start_network(experiment)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train_heads(network, training_data(experiment), experiment, experiment.warm_up, CPU)
    after = network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in moved} == {"simcc", "heatmap", "nerpe"}


def test_without_a_warm_up_nothing_moves(configure: Callable[..., Experiment]) -> None:
    experiment = configure(warm_up=HeadPhase(passes=0))
    network = start_network(experiment)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train_heads(network, training_data(experiment), experiment, experiment.warm_up, CPU)
    assert _equal(before, dict(network.state_dict()))


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": Schedule(steps=1, batch=6)},
        {"warm_up": HeadPhase(batch=6)},
        {"settle": HeadPhase(batch=6)},
    ],
)
def test_fewer_people_than_a_batch_are_refused(
    configure: Callable[..., Experiment], changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="5 people are fewer than a batch of 6"):
        train(configure(**changes))


def _order(experiment: Experiment, count: int) -> list[list[int]]:
    """The examples of the first batches, by which set they come from and their index."""
    stream = batches(experiment, training_data(experiment), 0)
    return [next(stream)["index"].tolist() for _ in range(count)]


def test_an_epoch_shows_everyone_at_most_once_and_differs_from_the_next(
    configure: Callable[..., Experiment],
) -> None:
    seen = _order(configure(), 20)
    epochs = [seen[i] + seen[i + 1] for i in range(0, 20, 2)]
    assert all(len(set(epoch)) == 4 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 5
    assert set().union(*epochs) == set(range(5))


def test_processes_share_each_batch_among_them(
    configure: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = configure(schedule=Schedule(steps=9, batch=4))
    whole = _order(experiment, 6)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(module, "world", lambda: 2)
        monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
        parts.append(_order(experiment, 6))
    for batch, first, second in zip(whole, *parts, strict=True):
        assert len(first) == len(second) == 2
        assert sorted(first + second) == sorted(batch)


def test_sets_mix_by_their_weights_whatever_their_sizes(
    configure: Callable[..., Experiment], people: DataSource, tmp_path: Path
) -> None:
    # The larger set, of white photos, is drawn a quarter as often as the smaller one.
    file, images = write_set(
        tmp_path / "white", [row(n) for n in range(1, 10)], photos=9, background=255
    )
    white = DataSource(annotations=file, images=images, split="all", weight=0.25)
    experiment = configure(
        train=[people, white],
        schedule=Schedule(steps=9, batch=7),
        augmentation=Augmentation(colour=0, cutout=0, scale=0, shift=0, half_body=0, rotation=0),
    )
    stream = batches(experiment, training_data(experiment), 0)
    crops = torch.cat([next(stream)["crop"] for _ in range(60)])
    bright = (crops[:, 32, 2:62].float().mean((1, 2)) > 128).float().mean()
    assert bright.item() == pytest.approx(0.2, abs=0.06)


def test_who_is_drawn_twice_in_an_epoch_is_seen_in_two_crops(
    configure: Callable[..., Experiment], people: DataSource
) -> None:
    # Nobody but the first set's five are ever drawn: ten draws an epoch.
    rare = people.model_copy(update={"weight": 1e-9})
    experiment = configure(train=[people, rare], schedule=Schedule(steps=9, batch=10))
    batch = next(batches(experiment, training_data(experiment), 0))
    assert len(set(batch["index"].tolist())) <= 5
    assert len({crop.numpy().tobytes() for crop in batch["crop"]}) == 10


def test_sets_share_no_random_numbers(
    configure: Callable[..., Experiment], people: DataSource
) -> None:
    data = training_data(configure(train=[people, people]))
    set_epoch(data, 0)
    assert not torch.equal(data[0]["points"], data[5]["points"])


def test_a_mix_of_sets_goes_on_in_mid_epoch_as_it_would_have(
    configure: Callable[..., Experiment], people: DataSource
) -> None:
    experiment = configure(train=[people, people], schedule=Schedule(steps=9, batch=2))
    data = training_data(experiment)
    whole = [batch for batch, _ in zip(batches(experiment, data, 0), range(8), strict=False)]
    resumed = [batch for batch, _ in zip(batches(experiment, data, 3), range(5), strict=False)]
    assert _equal(whole[3:], resumed)


@pytest.mark.data
def test_the_committed_experiments_are_valid(data: Path) -> None:
    folder = Path(module.__file__).parent / "experiments"
    experiment = load_experiment(folder / "pose-s.toml")
    assert experiment.name == "pose-s"
    assert isinstance(start_network(experiment), PoseNetwork)
    assert data.is_dir()


def test_what_is_held_stays_as_it_is_where_batch_norms_learn(
    configure: Callable[..., Experiment],
) -> None:
    shape = replace(SHAPE, encoder="timm:mobilenetv2_035:8", heads=("simcc",))
    experiment = configure(shape=shape, held=1, fold=False, schedule=Schedule(steps=1, batch=2))
    torch.manual_seed(experiment.seed)
    start = start_network(experiment).state_dict()
    state = torch.load(train(experiment), weights_only=True)["network"]
    held = ("encoder.body.conv_stem", "encoder.body.bn1", "encoder.body.blocks.0")
    for name, value in start.items():
        if name.startswith(held):
            assert torch.equal(value, state[name]), name
    name = "encoder.body.blocks.1.0.bn1.running_mean"
    assert not torch.equal(start[name], state[name])


def test_settling_moves_the_chosen_head_alone(configure: Callable[..., Experiment]) -> None:
    experiment = configure(settle=HeadPhase(heads=("nerpe",), passes=1, epochs=1, batch=2))
    settled = train(experiment)
    assert settled == experiment.final != experiment.last
    before = torch.load(experiment.last, weights_only=True)["ema"]
    after = torch.load(settled, weights_only=True)["ema"]
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"nerpe"}


def test_a_batch_in_parts_is_one_step_with_the_gradients_of_all(
    configure: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The heatmap's loss is a mean over people and no batch norm learns: parts and whole agree.
    shape = replace(SHAPE, heads=("heatmap",))
    still = Augmentation(scale=0, rotation=0, shift=0, flip=False, half_body=0, colour=0, cutout=0)
    ends = []
    for parts in (1, 2):
        experiment = configure(
            name=f"parts-{parts}", shape=shape, augmentation=still,
            serving=Serving(default_head="heatmap", data="painted", start="nothing"),
            schedule=Schedule(steps=2, batch=4, parts=parts, ramp=1),
        )  # fmt: skip
        ends.append(torch.load(train(experiment), weights_only=True))
        with (experiment.folder / "log.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["step", "seconds", "heatmap"]
        assert len(rows) == 2
        assert list((experiment.folder / "events").glob("events.out.tfevents.*"))
    assert [end["step"] for end in ends] == [2, 2]
    for name, whole in ends[0]["network"].items():
        np.testing.assert_allclose(whole, ends[1]["network"][name], atol=2e-5, err_msg=name)


def test_what_could_not_be_exported_is_refused_or_told_before_anything_is_trained(
    configure: Callable[..., Experiment],
) -> None:
    with pytest.raises(ValueError, match="the default head simcc is not one of heatmap, nerpe"):
        configure(shape=replace(SHAPE, heads=("heatmap", "nerpe")))
    with pytest.raises(ValueError, match="a kernel of 4 cells has no middle"):
        Serving(data="painted", start="nothing", blur=4)
    # The papers' ablations are of use without a bundle.
    shape = replace(SHAPE, nerpe_target="laplace")
    with console.capture() as said:
        train(configure(shape=shape, schedule=Schedule(steps=1, batch=2)))
    assert said.get().startswith("This can be trained and validated, and not be exported")


def test_a_batch_that_does_not_part_evenly_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 4 has no 3 equal parts"):
        Schedule(steps=1, batch=4, parts=3)
