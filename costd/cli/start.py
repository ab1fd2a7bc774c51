"""What `costd` begins with: a probe is answered at once, all else by the whole program."""

import os
import sys

from costd.cli import probe


def main() -> None:
    """Run the command line."""
    path = probe.socket_to_ask(sys.argv[1:], os.environ)
    problem = probe.problem_at(path) if path else None
    if problem is not None:
        sys.exit(f"costd: {problem}" if problem else 0)
    from costd.cli.costd import main as whole  # noqa: PLC0415  takes longer than a probe may

    whole()
