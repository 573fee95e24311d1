"""In which arithmetic the network runs while it learns; its losses are always float32's."""

from __future__ import annotations

from typing import Literal

import torch

from training.errors import TrainingError

Precision = Literal["fp32", "bf16", "fp16"]

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse what the device cannot do.

    Raises:
        TrainingError: it is fp16 without CUDA, or bf16 on a GPU that lacks it.
    """
    if precision == "fp16" and device.type != "cuda":
        raise TrainingError(f'precision = "fp16" needs CUDA and this is {device}: choose "bf16"')
    lacks = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and lacks:
        raise TrainingError(f'{torch.cuda.get_device_name()} has no bf16: choose "fp16" or "fp32"')


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Around the network alone: convolutions and products of matrices in fewer bits."""
    return torch.autocast(device.type, _TYPES[precision], enabled=precision != "fp32")


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """For fp16, whose small gradients would vanish; it does nothing for the others."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
