"""AP on `dev` while a run goes: of torch's own answers, in the boxes of the labels, without flip.

It tells runs and steps apart early. The figures that are reported are `evaluate`'s, taken of the
exported graphs on the product's own path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from models.codecs import Decoded
from models.formats import CocoRow, coco
from models.geometry import CropGeometry
from models.keypoints import COCO17
from models.networks.pose import HeadName, PoseNetwork
from models.predictor import Person, Pose
from training.config import Experiment
from training.data.examples import Examples
from training.describable import simcc_beta
from training.metrics import quick_stats
from training.prepare import read_source


class Validation:
    """The people of an experiment's `dev`, however small, and their labels."""

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        """Read them.

        Args:
            experiment: for its `dev`, and for how its bundle will decode.
            device: of the networks.

        Raises:
            DataError: the labels are not a COCO-style file.
            OSError: they cannot be read.
        """
        source = experiment.dev.model_copy(update={"smallest": 0, "unlabelled": False})
        self.people = read_source(source).people
        shape = experiment.shape
        plain = Examples(self.people, COCO17, shape.size, shape.matrix, augmentation=None)
        self.crops = DataLoader(plain, experiment.schedule.batch, num_workers=experiment.workers)
        self.serving, self.device = experiment.serving, device
        self.simcc = replace(shape.simcc, beta=simcc_beta(experiment.simcc_loss))
        self.geometries = [
            CropGeometry.from_box(person.box, shape.size, matrix=shape.matrix)
            for person in self.people
        ]
        content = json.loads(source.annotations.read_text())
        shown = {person.image_id for person in self.people}
        self.labels = content | {
            "images": [row for row in content["images"] if row["id"] in shown],
            "annotations": [row for row in content["annotations"] if row["image_id"] in shown],
        }

    def measure(self, network: PoseNetwork) -> dict[str, float]:
        """Each head's AP.

        Args:
            network: in eval mode, on the device.
        """
        rows: dict[HeadName, list[CocoRow]] = {head: [] for head in network.shape.heads}
        with torch.no_grad():
            for batch in self.crops:
                features = network.encode(batch["crop"].to(self.device))
                for head, found in rows.items():
                    decoded = self._decoded(network, head, features).on_host()
                    found += self._rows(head, batch["index"].tolist(), decoded)
        return {str(head): quick_stats(self.labels, found)["AP"] for head, found in rows.items()}

    def _decoded(self, network: PoseNetwork, head: HeadName, features: Tensor) -> Decoded:
        """A head's joints, decoded as its bundle will."""
        shape, serving = network.shape, self.serving
        if head == "simcc":
            x, y = network.simcc(features)
            return self.simcc.decode(x, y, serving.simcc, window=serving.window)
        if head == "heatmap":
            codec = replace(network.heatmap_codec, blur=serving.blur)
            return codec.decode(network.heatmap(features), serving.heatmap)
        cells = network.nerpe.cells(features)
        field = partial(network.nerpe.field, cells)
        return shape.nerpe.decode(field, features, serving.nerpe, serving.resolution)

    def _rows(self, head: str, indices: list[int], decoded: Decoded) -> Iterator[CocoRow]:
        for row, index in enumerate(indices):
            points = self.geometries[index].to_image(np.asarray(decoded.points[row], np.float64))
            pose = Pose(points, np.asarray(decoded.scores[row], np.float64))
            person = self.people[index]
            yield from coco([Person(person.box, {head: pose})], image_id=person.image_id)
