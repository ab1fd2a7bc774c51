import os
from pathlib import Path

import pytest

from costd import address


@pytest.fixture
def as_user(monkeypatch):
    def become(uid, **environment):
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return become


def test_root_serves_below_run_and_keeps_books_below_var(as_user):
    as_user(0, XDG_RUNTIME_DIR="/run/user/0")
    assert address.default_socket() == Path("/run/costd/costd.sock")
    assert address.default_control_socket() == Path("/run/costd/control.sock")
    assert address.default_data() == Path("/var/lib/costd")


def test_a_user_has_sockets_and_books_of_their_own(as_user):
    as_user(1000, XDG_RUNTIME_DIR="/run/user/1000", XDG_STATE_HOME="/home/ann/state")
    assert address.default_socket() == Path("/run/user/1000/costd/costd.sock")
    assert address.default_data() == Path("/home/ann/state/costd")


def test_a_user_without_a_session_has_a_directory_for_temporary_files(as_user):
    as_user(1000, TMPDIR="/tmp", HOME="/home/ann")
    assert address.default_socket().name == "costd.sock"
    assert address.default_directory().name == "costd-1000"
    assert address.default_data() == Path("/home/ann/.local/state/costd")
