"""What waits for the daemon, and forked children: each process has its own."""

import os
import signal
import subprocess
import sys

from costd_client.spool import Spool

FORK_AND_DIE = """
import os, sys
from pathlib import Path
from costd_client.outbox import Delivery, Outbox
from costd_client.spool import Entry
outbox = Outbox(lambda entry: Delivery.UNREACHABLE, folder=Path(sys.argv[1]))
assert outbox.put(Entry("a", "Record", b""))
child = os.fork()
if child == 0:
    os.write(1, b"%d\\n" % os.getpid())
    os.read(0, 1)
    os._exit(0)
os.kill(os.getpid(), 9)
"""


def run(code, *arguments):
    """Start a program with this process's modules."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_a_child_that_outlives_its_parent_keeps_nobody_from_what_that_left(tmp_path):
    with run(FORK_AND_DIE, str(tmp_path)) as program:
        try:
            assert program.wait(30) == -signal.SIGKILL
            program.stdout.readline()
            other = Spool(tmp_path)
            assert [one.entry_id for one in other.adopt()] == ["a"]
            other.close(keep=False)
        finally:
            program.stdin.close()  # ends the child


FLUSH_IN_A_CHILD = """
import os, sys, threading
from costd_client.outbox import Delivery, Outbox
from costd_client.spool import Entry
outbox = Outbox(lambda entry: Delivery.UNREACHABLE)
assert outbox.put(Entry("a", "Record", b""))
locked, forked = threading.Event(), threading.Event()
def hold():
    with outbox._changed:
        locked.set()
        forked.wait()
threading.Thread(target=hold).start()
locked.wait()
child = os.fork()
if child == 0:
    outbox.wake()
    os._exit(0 if outbox.flush(5) and outbox.pending == (0, 0, 0) else 1)
forked.set()
_, status = os.waitpid(child, 0)
outbox.close(0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_waits_for_nothing_of_its_parents(tmp_path):
    with run(FLUSH_IN_A_CHILD) as program:
        program.stdin.close()
        try:
            assert program.wait(15) == 0
        finally:
            program.kill()
