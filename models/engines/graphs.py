"""The graphs of a pose bundle, each run by whatever opened it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from models.arrays import Array
from models.bundle import Bundle
from models.engines import Engine

Run: TypeAlias = Callable[..., tuple[Array, ...]]
"""A graph: its inputs as arrays, in its order, to all its outputs. From any thread."""


class GraphEngine(Engine):
    """An engine made of graphs: encoder, heads, and NerPE's cells and field."""

    def __init__(
        self, bundle: Bundle, open_graph: Callable[[Path], Run], *, name: str, device: str
    ) -> None:
        """Open each of a verified pose bundle's graphs; a bundle of another kind is refused."""
        manifest = bundle.pose
        heads = manifest.heads
        self.name, self.device = name, device
        self._encoder = open_graph(bundle.file(manifest.encoder))
        self._heads: dict[str, Run] = {}
        if heads.simcc:
            self._heads["simcc"] = open_graph(bundle.file(heads.simcc.graph))
        if heads.heatmap:
            self._heads["heatmap"] = open_graph(bundle.file(heads.heatmap.graph))
        if heads.nerpe:
            self._heads["nerpe"] = open_graph(bundle.file(heads.nerpe.cells))
            self._field = open_graph(bundle.file(heads.nerpe.graph))

    def encode(self, crops: Array) -> Array:
        """See `Engine`."""
        return self._encoder(crops)[0]

    def head(self, name: str, features: Array) -> tuple[Array, ...]:
        """See `Engine`."""
        return self._heads[name](features)

    def field(self, cells: Array, points: Array) -> Array:
        """See `Engine`."""
        return self._field(cells, points)[0]
