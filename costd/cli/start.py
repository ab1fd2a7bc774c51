"""What `costd` begins with: a probe is answered at once, all else by the whole program."""

import os
import sys

from costd.cli import probe


def main() -> None:
    """Run the command line."""
    path = probe.socket_to_ask(sys.argv[1:], os.environ)
    if path and probe.is_serving(path):
        return
    from costd.cli.costd import main as whole  # noqa: PLC0415  takes longer than a probe may

    whole()
