"""The README's tables of heads, one a bundle: no figure in them is typed by hand."""

from __future__ import annotations

import re
from pathlib import Path

from models.bundle import load_bundle
from models.files import write_whole
from models.manifest import PoseManifest
from training.errors import DataError
from training.evaluation import GROUND_TRUTH, Evaluation
from training.report import default_rows

BEGIN, END = "<!-- figures of {}: written by `subpose-train card` -->", "<!-- /figures -->"


def write_readme(readme: Path, folder: Path) -> None:
    """Put a bundle's measured figures between the README's marks.

    Args:
        readme: to change.
        folder: of the bundle, with `evaluation.json` in it.

    Raises:
        DataError: the README has no marks for this bundle.
    """
    text = readme.read_text()
    manifest = load_bundle(folder).pose
    begin = BEGIN.format(manifest.name)
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise DataError(f"{readme} has no {begin} ... {END}")
    evaluation = Evaluation.model_validate_json((folder / "evaluation.json").read_bytes())
    table = heads_table(evaluation, manifest)
    write_whole(readme, pattern.sub(f"{begin}\n{table}\n{END}", text))


def heads_table(evaluation: Evaluation, manifest: PoseManifest) -> str:
    """AP on `coco/val` by head, each with the manifest's decode."""

    def row(head: str, boxes: str, *, flip: bool) -> str:
        for figures in default_rows(evaluation, manifest, "coco/val", boxes=boxes, flip=flip):
            if figures.head == head:
                low, high = figures.interval
                return f"{figures.main:.3f} ({low:.3f} to {high:.3f})"
        return "not measured"

    detectors = sorted({row.boxes for row in evaluation.rows} - {GROUND_TRUTH})
    lines = [
        "| head | decode | AP, labelled boxes | with `flip=true` | photo to joints |",
        "|---|---|---|---|---|",
    ]
    for head in manifest.heads.names:
        spec = getattr(manifest.heads, head)
        whole = row(head, detectors[0], flip=False) if detectors else "not measured"
        lines.append(
            f"| `{head}` | {spec.decode} | {row(head, GROUND_TRUTH, flip=False)} | "
            f"{row(head, GROUND_TRUTH, flip=True)} | {whole} |"
        )
    return "\n".join(lines)
