"""The command line: run the operator, and what people type."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lifeboat import cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that was asked for; the answer is the exit code."""
    parsed = cli.parser().parse_args(arguments)
    code: int = parsed.run(parsed)
    return code


if __name__ == "__main__":
    sys.exit(main())
