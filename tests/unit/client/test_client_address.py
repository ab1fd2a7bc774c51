"""A client looks where `costd serve` of the same user puts its socket."""

import os
import socket
import tempfile

import pytest
from costd_client import Client
from costd_client.address import default_address

from costd import address

HOST = "unix:/run/costd/costd.sock"


@pytest.fixture
def as_user(monkeypatch):
    """Say that this process runs as another user; files belong to whoever really runs it."""
    me = os.geteuid()

    def become(*, root, **environment):
        monkeypatch.setattr(os, "geteuid", lambda: 0 if root else me or 1000)
        for name in ("XDG_RUNTIME_DIR", "COSTD_ADDRESS", "COSTD_SOCKET"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))

    return become


@pytest.fixture
def serving():
    """Put a socket where a daemon would have it, in a directory of the user asking."""
    open_sockets = []

    def serve(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(path.parent, os.geteuid(), -1)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        open_sockets.append(listening)

    yield serve
    for each in open_sockets:
        each.close()


def test_root_asks_the_hosts_daemon(as_user, tmp_path):
    as_user(root=True, XDG_RUNTIME_DIR=tmp_path)
    assert default_address() == HOST == f"unix:{address.default_socket()}"


def test_a_user_asks_a_daemon_of_their_own_first(as_user, serving, tmp_path):
    as_user(root=False, XDG_RUNTIME_DIR=tmp_path)
    assert default_address() == HOST
    serving(address.default_socket())
    assert default_address() == f"unix:{address.default_socket()}"
    with Client() as client:
        assert client.address == f"unix:{address.default_socket()}"


def test_a_user_without_a_session_too(as_user, serving, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    as_user(root=False)
    serving(address.default_socket())
    assert default_address() == f"unix:{tmp_path}/costd-{os.geteuid()}/costd.sock"


def test_a_directory_of_somebody_else_is_not_believed(as_user, serving, monkeypatch, tmp_path):
    as_user(root=False, XDG_RUNTIME_DIR=tmp_path)
    serving(address.default_socket())
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert default_address() == HOST


def test_an_address_of_the_environment_comes_before_a_socket_and_both_before_any_default(as_user):
    as_user(root=True, COSTD_SOCKET="/run/costd/agent/costd.sock")
    with Client() as client:
        assert client.address == "unix:/run/costd/agent/costd.sock"
    as_user(root=True, COSTD_SOCKET="/run/costd/agent/costd.sock", COSTD_ADDRESS="127.0.0.1:1")
    with Client() as client:
        assert client.address == "127.0.0.1:1"
    with Client(address="unix:/named/here") as client:
        assert client.address == "unix:/named/here"
    as_user(root=True, COSTD_SOCKET="", COSTD_ADDRESS="")
    with Client() as client:
        assert client.address == HOST
