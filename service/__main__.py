"""`python -m service`: serve with the settings of the environment."""

from __future__ import annotations

import sys

from pydantic import ValidationError

from service.server import serve
from service.settings import Settings


def main() -> int:
    """Read the settings and serve; 2 where they make no sense."""
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors():
            where = "".join(f"SUBPOSE_{str(part).upper()}: " for part in problem["loc"][:1])
            print(f"{where}{problem['msg']}", file=sys.stderr)
        return 2
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
