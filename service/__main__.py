"""`python -m service` is `subpose`."""

from __future__ import annotations

from service.cli import app

if __name__ == "__main__":
    app(prog_name="subpose")
