"""`make demo TRACE=FILE.csv`: replays a trace, and recomputes every total; `--serial` every verdict."""

from collections.abc import Sequence
from pathlib import Path

from rich.progress_bar import ProgressBar

from costd.cli.demo.crew import Assignment
from costd.cli.demo.foretell import Oracle
from costd.cli.demo.journal import Entry
from costd.cli.demo.outcome import Outcome
from costd.cli.demo.recount import recount
from costd.cli.demo.rulebook import read_rulebook
from costd.cli.demo.screen import Screen, Show
from costd.cli.demo.stage import Stage, running
from costd.cli.demo.story import View
from costd.cli.demo.tally import Tally
from costd.cli.demo.trace import Row
from costd.cli.demo.verify import Check, read_books, verify
from costd.cli.demo.workers import Workers, at_work
from costd.clock import ticks_ns
from costd.model.time import NS_PER_S
