"""`CARD.md` of a pose bundle: no figure in it is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from models.bundle import BUNDLES, Bundle, load_bundle
from models.detectors import load_detector
from models.engines import load_engine
from models.files import write_whole
from models.manifest import PoseManifest
from models.pose import PoseModel
from models.predictor import Predictor
from training.config import Experiment, load_experiment
from training.errors import TrainingError
from training.evaluation import GROUND_TRUTH, Evaluation, Figures
from training.log import Log, read_log, training_seconds
from training.report import (
    chart_of_losses,
    chart_of_reliability,
    chart_of_thresholds,
    default_rows,
    equivariance_table,
    table,
    tables,
)
from training.showcase import Credit, credits_of, draw_showcase

DETECTOR = "person-n"
"""Finds the people in the photos that the card shows."""

_TEMPLATE = Path(__file__).with_name("card.md")
_REPORTED = "coco/val"


class CardError(TrainingError):
    """A card that would say something untrue; the message says what."""


def write_card(config: Path, data: Path, folder: Path | None = None) -> list[Path]:
    """Write a bundle's card, the pictures beside it, and its accuracy in the manifest.

    Args:
        config: the experiment that made the bundle; its run's `log.csv` is read.
        data: the folder with `demo/`, for the examples.
        folder: of the bundle, with `evaluation.json` in it; None for the committed one.

    Returns:
        What was written.

    Raises:
        CardError: the evaluation is of other weights, lacks what a card must say, or the weights
            have learnt from data that may not enter them.
        OSError: `evaluation.json` or `log.csv` cannot be read.
    """
    experiment = load_experiment(config)
    folder = folder or BUNDLES / experiment.name
    bundle = load_bundle(folder)
    evaluation = Evaluation.model_validate_json((folder / "evaluation.json").read_bytes())
    _check(experiment, bundle, evaluation)
    log = read_log(experiment.folder / "log.csv")
    rows = default_rows(evaluation, bundle.pose, _REPORTED)
    predictor = Predictor(PoseModel(bundle, load_engine(bundle)), load_detector(DETECTOR))
    pictures = {
        "losses.png": chart_of_losses(log),
        "thresholds.png": chart_of_thresholds(rows),
        "reliability.png": chart_of_reliability(rows),
        "examples.png": draw_showcase(predictor, data / "demo"),
    }
    shown = credits_of(data / "demo")
    card = compose(config, experiment, bundle.pose, evaluation, log, shown)
    manifest = bundle.pose.model_copy(update={"accuracy": accuracy(evaluation, bundle.pose)})
    for name, content in pictures.items():
        write_whole(folder / name, content)
    write_whole(folder / "CARD.md", card)
    write_whole(folder / "manifest.json", manifest.model_dump_json(indent=2) + "\n")
    return [folder / name for name in (*pictures, "CARD.md", "manifest.json")]


def accuracy(evaluation: Evaluation, manifest: PoseManifest) -> dict[str, float]:
    """What the manifest says: by split and head the main metric, with the manifest's decodes."""
    figures = {}
    for row in evaluation.rows:
        if row not in default_rows(evaluation, manifest, row.split, boxes=row.boxes, flip=row.flip):
            continue
        name = f"{row.split.replace('/', '_')}_{row.head}"
        name += "" if row.boxes == GROUND_TRUTH else "_detected"
        name += "_flip" if row.flip else ""
        metric = next(iter(row.metrics)).lower().replace("@", "_")
        figures[f"{name}_{metric}"] = round(row.main, 4)
    return dict(sorted(figures.items()))


def compose(
    config: Path,
    experiment: Experiment,
    manifest: PoseManifest,
    evaluation: Evaluation,
    log: Log,
    shown: Sequence[Credit],
) -> str:
    """The card's text.

    Args:
        config: the experiment's file.
        experiment: what it says.
        manifest: of the bundle.
        evaluation: of the bundle.
        log: of the run.
        shown: the photos, from left to right.
    """
    plain, flipped = (default_rows(evaluation, manifest, _REPORTED, flip=f) for f in (False, True))
    best = max(plain, key=lambda row: row.main)
    plan, warm = experiment.schedule, experiment.warm_up
    seconds = training_seconds(log)
    detected = [
        row
        for name in dict.fromkeys(row.boxes for row in evaluation.rows)
        for row in default_rows(evaluation, manifest, _REPORTED, boxes=name)
        if name != GROUND_TRUTH
    ]
    values = {
        "name": manifest.name,
        "heads": ", ".join(f"`{head}`" for head in manifest.heads.names),
        "width": manifest.input.width,
        "height": manifest.input.height,
        "keypoints": manifest.keypoint_set,
        "default": manifest.default_head,
        "config": f"{config.parent.name}/{config.name}",
        "date": manifest.provenance.date,
        "checkpoints": experiment.serving.checkpoints,
        "data": experiment.serving.data,
        "start": experiment.serving.start,
        "licence": manifest.licence,
        "engine": evaluation.engine,
        "measured": evaluation.measured,
        "best_head": best.head,
        "best_decode": best.decode,
        "best_ap": f"{best.main:.3f}",
        "best_low": f"{best.interval[0]:.3f}",
        "best_high": f"{best.interval[1]:.3f}",
        "people": best.people,
        "photos": best.photos,
        "flip": _flip(plain, flipped),
        "detected": _detected(detected),
        "table": table(plain),
        "tables": tables(evaluation),
        "steps": int(log["step"][-1]),
        "batch": plan.batch,
        "warm": f"{warm.epochs} epochs, each over {warm.passes} × everyone, augmented",
        "encoder_rate": f"{plan.encoder_rate:g}",
        "head_rate": f"{plan.head_rate:g}",
        "share": f"{experiment.teachers.share:g}" if experiment.teachers else "none",
        "time": f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min",
        "credits": "\n".join(f"- {credit}" for credit in shown),
        "detector": DETECTOR,
        "believed": _believed(plain),
        "steadiness": equivariance_table(evaluation.equivariance),
        "steady_split": evaluation.equivariance[0].split,
        # Mirrored once, moved and scaled several times.
        "steady_joints": min(each.joints for each in evaluation.equivariance),
    }
    return Template(_TEMPLATE.read_text()).substitute(values)


def _check(experiment: Experiment, bundle: Bundle, evaluation: Evaluation) -> None:
    manifest = bundle.pose
    if evaluation.weights != bundle.digest:
        raise CardError(f"evaluation.json is not of these weights of {manifest.name}: evaluate it")
    missing = set(manifest.heads.names) - {
        row.head for row in default_rows(evaluation, manifest, _REPORTED)
    }
    if missing:
        heads = ", ".join(sorted(missing))
        raise CardError(f"evaluation.json lacks {_REPORTED} without flip of {heads}: evaluate it")
    raw = [name for name, spec in manifest.heads if spec and spec.calibration is None]
    if raw:
        raise CardError(f"{', '.join(raw)} of {manifest.name}: not calibrated; calibrate it first")
    if not evaluation.equivariance:
        raise CardError("evaluation.json lacks the equivariance: measure it")
    if any("lspet" in source.annotations.parts for source in experiment.train):
        raise CardError("LSPET is for research alone: it may not enter weights that are given away")


def _believed(rows: Sequence[Figures]) -> str:
    """How far scores and sigmas hold, by head."""
    parts = [
        f"`{row.head}` {row.metrics['calibration_error']:.3f} and {row.metrics['within_sigma']:.0%}"
        for row in rows
    ]
    return ", ".join(parts)


def _flip(plain: Sequence[Figures], flipped: Sequence[Figures]) -> str:
    """What averaging with the mirrored crop brings each head."""
    without = {row.head: row.main for row in plain}
    parts = [f"`{row.head}` {without[row.head]:.3f} to {row.main:.3f}" for row in flipped]
    return f"Averaging with the mirrored crop (`flip`) takes {', '.join(parts)}." if parts else ""


def _detected(rows: Sequence[Figures]) -> str:
    """The whole path, and what the detector's own manifest says of it."""
    parts = []
    for name in dict.fromkeys(row.boxes for row in rows):
        mine = [row for row in rows if row.boxes == name]
        figures = ", ".join(
            f"`{row.head}` {row.main:.3f} AP ({row.interval[0]:.3f} to {row.interval[1]:.3f}), "
            f"{row.metrics['AR']:.3f} AR"
            for row in mine
        )
        parts.append(
            f"Photo to joints with nothing given, boxes of `{name}`, at most 20 people a photo, "
            f"the same pose answered once: {figures}; {mine[0].found / mine[0].photos:.1f} people "
            f"answered a photo.{_stated_recall(name)}"
        )
    return "\n\n".join(parts)


def _stated_recall(detector: str) -> str:
    path = BUNDLES / detector / "manifest.json"
    stated: dict[str, Any] = json.loads(path.read_text())["accuracy"] if path.exists() else {}
    if "coco_val_recall" not in stated:
        return ""
    return (
        f" Its recall on coco/val is {stated['coco_val_recall']:.3f} (people with keypoints, "
        f"IoU 0.5, the best 5 boxes a photo)."
    )
