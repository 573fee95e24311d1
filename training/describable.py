"""What a bundle's manifest can say of how a network learnt, which is less than it can learn by."""

from __future__ import annotations

from models.networks.pose import PoseShape
from training.config import SimccLoss


def simcc_beta(loss: SimccLoss) -> float | None:
    """As `SimccCodec` has it: where logits learn what labels of peak 1 are, both times beta."""
    return None if loss.beta == 1 and not loss.label_beta else loss.beta


def indescribable(shape: PoseShape, loss: SimccLoss) -> str | None:
    """Why no manifest describes a network; None where one does.

    Args:
        shape: of the network.
        loss: that SimCC's head learns by.
    """
    labels = shape.simcc_labels
    if "simcc" in shape.heads:
        if labels.kind != "gaussian":
            return (
                f"a manifest describes SimCC's Gaussian labels: this network has {labels.kind} ones"
            )
        # The form `joints` makes labels sum to 1, whatever their peak was.
        peak_one = not labels.normalised and loss.form != "joints"
        of_labels = peak_one and loss.beta == loss.label_beta
        if simcc_beta(loss) is not None and not of_labels:
            return (
                "a manifest describes SimCC's logits without a beta, or with that of their labels, "
                f"whose peak is 1: this network has beta {loss.beta:g}, label_beta "
                f"{loss.label_beta:g}, the form {loss.form} and normalised = {labels.normalised}"
            )
    target = shape.nerpe_target
    if "nerpe" in shape.heads and target != "gaussian":
        return f"a manifest describes NerPE's Gaussian targets: this network has {target} ones"
    return None
