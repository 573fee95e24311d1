"""What was found in a split against its labels, by the protocol of its set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.formats import coco
from models.keypoints import CROWDPOSE14, LSP14, KeypointSet
from models.predictor import Person
from training.joint_errors import JointErrors, People
from training.metrics import KeypointMatches, bootstrap
from training.protocols import MPII_BUG, crowdpose_figures, crowdpose_matches, pckh, pcp
from training.truth import Truth


def compare(
    truth: Truth, people: People, errors: JointErrors | None, draws: int
) -> tuple[dict[str, float], tuple[float, float], tuple[float, ...]]:
    """The metrics, the main one's interval, AP by threshold.

    Args:
        truth: the split.
        people: found in it, with its joints.
        errors: of the joints, where they are person by person those of the labels.
        draws: of the bootstrap.
    """
    extra = errors.figures() if errors else {}
    once = np.ones(len(truth.photos))
    if truth.heads and errors:
        known = errors
        ids = [person.annotation_id for photo in truth.photos for person in photo.people]
        heads = np.array([truth.heads[number] for number in ids])

        def share(weights: NDArray[np.float64], of_head: float = 0.5) -> float:
            drawn = np.repeat(np.arange(len(heads)), weights[known.photo].astype(int))
            labelled = np.isfinite(known.distances)
            return pckh(
                known.found[drawn], known.labels[drawn], labelled[drawn], heads[drawn], of_head
            )[0]

        # The last is what HRNet's and NerPE's tables call @0.1.
        figures = {f"PCKh@{of_head}": share(once, of_head) for of_head in (0.5, 0.1, MPII_BUG)}
        return {**figures, **extra}, bootstrap(share, len(once), draws=draws), ()
    if truth.split.startswith("lsp") and errors:
        figures = {"PCK@0.2": errors.pck(once)}
        if truth.keypoints == LSP14:
            figures["PCP"] = pcp(errors.found, errors.labels, np.isfinite(errors.distances))
        return {**figures, **extra}, bootstrap(errors.pck, len(once), draws=draws), ()
    matches = match_people(truth, people)
    crowd = truth.keypoints == CROWDPOSE14
    figures = crowdpose_figures(truth.content, matches) if crowd else matches.stats
    interval = bootstrap(matches.ap, matches.images, draws=draws)
    return {**figures, **extra}, interval, tuple(matches.precision().mean(axis=1).tolist())


def match_people(truth: Truth, people: People) -> KeypointMatches:
    """COCO's matching of what was found in a split, or CrowdPose's."""
    rows = [
        row
        for photo, found in zip(truth.photos, people, strict=True)
        for row in coco(found, image_id=photo.image_id)
    ]
    if truth.keypoints == CROWDPOSE14:
        return crowdpose_matches(truth.content, rows)
    return KeypointMatches(truth.content, rows)


def named(people: list[Person], own: KeypointSet, asked: KeypointSet) -> list[Person]:
    """With the joints of another set, by name; those that they lack score 0, and are not asked."""
    if own.names == asked.names:
        return people
    known = [index for index, name in enumerate(asked.names) if name in own.names]
    source = [own.index(asked.names[index]) for index in known]

    def taken(values: NDArray[np.float64]) -> NDArray[np.float64]:
        result = np.zeros((len(asked), *values.shape[1:]))
        result[known] = values[source]
        return result

    return [
        replace(
            person,
            poses={
                head: replace(
                    pose,
                    points=taken(pose.points),
                    scores=taken(pose.scores),
                    sigmas=None if pose.sigmas is None else taken(pose.sigmas),
                )
                for head, pose in person.poses.items()
            },
        )
        for person in people
    ]
