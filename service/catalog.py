"""What a server serves: the bundles of its folders, loaded, by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from models.bundle import Bundle, BundleError, find_bundles, load_bundle
from models.detectors import Detector, load_detector
from models.engines import Remote, load_engine
from models.manifest import PoseManifest
from models.pose import PoseModel
from service.problems import UnknownDetector, UnknownModel
from service.settings import Settings, own_bundles

logger = logging.getLogger(__name__)

WHOLE = "whole"
"""The detector that finds one person: the whole image."""


@dataclass(frozen=True, slots=True)
class ServedDetector:
    """A detector under the name that requests use.

    Attributes:
        name: as in /models.
        detector: loaded.
        bundle: where it came from; None for `whole` and for weights that only a setting can name.
    """

    name: str
    detector: Detector
    bundle: Bundle | None


@dataclass(frozen=True, slots=True)
class Catalog:
    """Models and detectors by name, and which of them is the default."""

    models: Mapping[str, PoseModel]
    detectors: Mapping[str, ServedDetector]
    default_model: str
    default_detector: str

    def model(self, name: str | None) -> PoseModel:
        """A pose model, the default where none is named.

        Raises:
            UnknownModel: not served here.
        """
        try:
            return self.models[name or self.default_model]
        except KeyError:
            raise UnknownModel(f"{name!r} is not one of {', '.join(self.models)}") from None

    def detector(self, name: str | None) -> ServedDetector:
        """A detector, the default where none is named.

        Raises:
            UnknownDetector: not served here.
        """
        try:
            return self.detectors[name or self.default_detector]
        except KeyError:
            raise UnknownDetector(f"{name!r} is not one of {', '.join(self.detectors)}") from None


def load_catalog(settings: Settings) -> Catalog:
    """Load everything that the settings name.

    Raises:
        BundleError: a bundle is damaged, or a default is not there.
        EngineError: the engine or the device is missing.
    """
    poses: dict[str, Bundle] = {}
    detectors: dict[str, ServedDetector] = {}
    for folder in settings.bundles:
        for name, path in find_bundles(folder).items():
            bundle = load_bundle(path)
            if name in poses or name in detectors:
                raise BundleError(f"two bundles are named {name}; rename one's folder")
            if isinstance(bundle.manifest, PoseManifest):
                poses[name] = bundle
            else:
                detector = load_detector(
                    bundle,
                    engine="torch" if settings.engine == "torch" else "onnxruntime",
                    device=settings.device,
                    threads=settings.threads,
                )
                detectors[name] = ServedDetector(name, detector, bundle)
    if settings.model not in poses:
        known = ", ".join(poses) or "none at all"
        raise BundleError(
            f"--model (SUBPOSE_MODEL): there is no pose bundle {settings.model!r}, only {known}"
            + _missing_folders(settings)
        )
    detectors[WHOLE] = ServedDetector(WHOLE, load_detector(WHOLE), None)
    default = _default_detector(settings, detectors)
    models = {}
    for name, bundle in poses.items():  # last, as `auto` may time engines
        engine = load_engine(
            bundle,
            engine=settings.engine,
            device=settings.device,
            threads=settings.threads,
            precision=settings.precision,
            notes=settings.engine_file,
            remote=Remote(settings.triton, settings.triton_seconds),
        )
        models[name] = PoseModel(bundle, engine)
    logger.info("serving models %s, detectors %s", ", ".join(models), ", ".join(detectors))
    return Catalog(models, detectors, settings.model, default)


def _default_detector(settings: Settings, detectors: dict[str, ServedDetector]) -> str:
    """The default's name; loads what only the server's own setting may name."""
    which = settings.detector
    if which.startswith("ultralytics:"):
        loaded = load_detector(which, device=settings.device, threads=settings.threads)
        # Its weights may be named by a path, which is nobody else's business.
        detectors["ultralytics"] = ServedDetector("ultralytics", loaded, None)
        return "ultralytics"
    if which not in detectors:
        known = ", ".join(detectors)
        raise BundleError(
            f"--detector (SUBPOSE_DETECTOR): there is no detector {which!r}, only {known}"
            + _missing_folders(settings)
        )
    return which


def _missing_folders(settings: Settings) -> str:
    """What a bundle may be missing for; the user's own folder need not be there."""
    missing = [
        str(folder)
        for folder in settings.bundles
        if not folder.is_dir() and folder != own_bundles()
    ]
    if not missing:
        return ""
    return f"; --bundles (SUBPOSE_BUNDLES): there is no folder {', '.join(missing)}"
