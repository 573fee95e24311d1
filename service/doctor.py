"""`subpose doctor`: what has to be there for the service to work, looked at one by one."""

from __future__ import annotations

import io
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image, features

from models.bundle import BundleError, find_bundles, load_bundle
from models.engines import EngineError
from models.predictor import Predictor
from service.catalog import load_catalog
from service.images import PostedImage
from service.ports import remedy, try_port
from service.settings import Settings, own_bundles

SAMPLE = Path(__file__).parent / "page" / "sample.jpg"
_GROUP = Path("/sys/fs/cgroup")
_ENOUGH_MEMORY = 1_000_000_000
"""Bytes: the process with its models, a large photo and kept features."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; a remedy where something is wrong with it."""

    name: str
    found: str
    remedy: str | None = None


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, the cheap ones first."""
    yield _python()
    yield _engine_package()
    if settings.engine != "torch":  # which has a device of its own, tried by the photo below
        yield _engine_device(settings)
    yield _one_owner("cv2", keep="opencv-python-headless")
    yield _image_libraries()
    yield from _bundles(settings)
    yield _photo(settings)
    yield _memory()
    yield _port(settings)


def _python() -> Check:
    return Check("python", f"{platform.python_version()} in {sys.prefix}")


def _engine_package() -> Check:
    try:
        import onnxruntime
    except ImportError as error:
        return Check("onnxruntime", str(error), "install it: pip install -e '.[cpu]' (or .[gpu])")
    owners = _one_owner("onnxruntime", keep="the one you want")
    found = f"{onnxruntime.__version__} with {', '.join(onnxruntime.get_available_providers())}"
    return Check("onnxruntime", f"{found}, from {owners.found}", owners.remedy)


def _one_owner(module: str, *, keep: str) -> Check:
    """Two distributions with one import name overwrite each other's files, silently."""
    owners = sorted(set(packages_distributions().get(module, [])))
    found = ", ".join(f"{owner} {_version(owner)}" for owner in owners) or "not installed"
    if len(owners) == 1:
        return Check(module, found)
    return Check(module, found, f"pip uninstall {' '.join(owners)}, then install {keep} alone")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "?"


def _engine_device(settings: Settings) -> Check:
    wanted = "CUDAExecutionProvider" if settings.device == "cuda" else "CPUExecutionProvider"
    try:
        import onnxruntime
    except ImportError:
        return Check("device", settings.device, "install onnxruntime first")
    if wanted in onnxruntime.get_available_providers():
        return Check("device", f"{settings.device}: {wanted} is built in")
    remedy = "install .[gpu] in place of .[cpu], or set SUBPOSE_DEVICE=cpu"
    return Check("device", f"{settings.device}: {wanted} is missing", remedy)


def _image_libraries() -> Check:
    """Every kind of photo that is taken, written and read again."""
    found = f"simplejpeg {_version('simplejpeg')}, Pillow {_version('pillow')}"
    grey = np.full((16, 16, 3), 128, np.uint8)
    if not features.check("webp"):
        return Check("images", found, "this Pillow has no WebP: reinstall it from its wheel")
    for kind in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(grey).save(file, kind)
        if abs(PostedImage(file.getvalue(), grey.size).pixels().mean() - 128) > 2:
            return Check("images", f"{found}: {kind} is read wrongly", "reinstall both")
    again = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(grey))
    if abs(again.mean() - 128) > 2:
        return Check("images", f"{found}: simplejpeg reads wrongly", "reinstall simplejpeg")
    return Check("images", f"JPEG, PNG and WebP by {found}; OpenCV {cv2.__version__}")


def _bundles(settings: Settings) -> Iterator[Check]:
    for folder in settings.bundles:
        paths = find_bundles(folder)
        if not paths and folder != own_bundles():
            remedy = "check SUBPOSE_BUNDLES: its folders hold bundles, each with manifest.json"
            yield Check("bundle", f"none in {folder}", remedy)
        for name, path in paths.items():
            try:
                bundle = load_bundle(path)
            except BundleError as error:
                yield Check("bundle", str(error), "restore it: git checkout, or export it again")
            else:
                yield Check("bundle", f"{name} verified, {bundle.digest[:19]}")


def _photo(settings: Settings) -> Check:
    """The whole way, photo to joints, as a server would go it."""
    try:
        catalog = load_catalog(settings)
    except (BundleError, EngineError) as error:
        return Check("photo", str(error), "mend what is said above first")
    model, detector = catalog.model(None), catalog.detector(None).detector
    pixels = PostedImage(SAMPLE.read_bytes(), settings.image_pixels).pixels()
    began = time.perf_counter()
    people = Predictor(model, detector).predict(pixels)
    took = (time.perf_counter() - began) * 1000
    noun = "person" if len(people) == 1 else "people"
    found = (
        f"{len(people)} {noun} found in the sample in {took:.0f} ms, "
        f"{model.name} on {model.engine.name}/{model.engine.device}"
    )
    if people:
        return Check("photo", found)
    return Check("photo", found, "the sample shows people: these weights do not work")


def _memory() -> Check:
    free = _free_memory()
    if free is None:
        return Check("memory", "cannot be told on this system")
    found = f"{free / 1e9:.1f} GB free"
    if free >= _ENOUGH_MEMORY:
        return Check("memory", found)
    return Check("memory", found, "make room for 1 GB, or lower SUBPOSE_KEEP_BYTES")


def _free_memory() -> int | None:
    """Bytes this process may still take: the machine's, or its control group's if less."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    (free,) = (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    try:
        limit = (_GROUP / "memory.max").read_text().strip()
        used = int((_GROUP / "memory.current").read_text())
        counts = dict(map(str.split, (_GROUP / "memory.stat").read_text().splitlines()))
        used -= int(counts["inactive_file"])  # of the page cache: it goes when there is need
    except (OSError, ValueError, KeyError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def _port(settings: Settings) -> Check:
    where = f"{settings.host}:{settings.port}"
    try:
        try_port(settings.host, settings.port)
    except OSError as error:
        return Check("port", f"{where}: {error.strerror}", remedy(error, "port"))
    return Check("port", f"{where} is free")
