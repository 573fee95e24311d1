"""How files are read: a field that nobody knows is an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """What a file says, every word of it known, and nobody's to change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
