"""Why work ends without its result, as whoever started it should read it: without a traceback."""

from __future__ import annotations


class TrainingError(Exception):
    """Work that cannot go on; the message says why."""


class ExportError(TrainingError):
    """A graph that does not answer as the network does; nothing was written."""


class DataError(TrainingError, ValueError):
    """Data or weights that cannot be worked with; the message says which."""
