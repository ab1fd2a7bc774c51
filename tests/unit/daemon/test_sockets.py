import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from costd.serving.sockets import CannotListen, claim, created_with, is_answered, remove_if_ours


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(prefix="costd-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def listener(directory):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "x.sock"))
        listening.listen()
        yield listening


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_is_made_for_owner_and_group_whatever_the_umask(directory):
    before = os.umask(0o077)
    try:
        claim(directory / "run" / "costd" / "costd.sock")
    finally:
        os.umask(before)
    assert mode(directory / "run" / "costd") == 0o750


@pytest.mark.parametrize(
    ("socket_mode", "expected"), [(0o600, 0o750), (0o660, 0o750), (0o666, 0o755)]
)
def test_others_enter_a_directory_made_for_a_socket_that_they_may_use(
    directory, socket_mode, expected
):
    claim(directory / "agent" / "costd.sock", socket_mode)
    assert mode(directory / "agent") == expected


def test_a_directory_that_exists_keeps_its_mode(directory):
    directory.chmod(0o711)
    claim(directory / "costd.sock")
    assert mode(directory) == 0o711


def test_a_dead_daemon_s_socket_is_removed(directory, listener):
    listener.close()
    assert (directory / "x.sock").is_socket()
    claim(directory / "x.sock")
    assert not (directory / "x.sock").exists()


def test_a_live_daemon_s_socket_is_refused_and_left(directory, listener):
    with pytest.raises(CannotListen, match=r"another daemon serves .*x\.sock"):
        claim(directory / "x.sock")
    assert is_answered(directory / "x.sock")


def test_a_daemon_too_busy_to_answer_is_alive(directory):
    with socket.socket(socket.AF_UNIX) as busy:
        path = directory / "busy.sock"
        busy.bind(str(path))
        busy.listen(0)
        waiting = []
        while True:
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            waiting.append(one)
            try:
                one.connect(str(path))
            except BlockingIOError:
                break
        assert is_answered(path)
        for one in waiting:
            one.close()


def test_what_is_no_socket_is_left_alone(directory):
    (directory / "x.sock").write_text("mine")
    with pytest.raises(CannotListen, match="is no socket"):
        claim(directory / "x.sock")
    assert (directory / "x.sock").read_text() == "mine"


def test_a_link_to_somewhere_is_no_socket(directory, listener):
    (directory / "link.sock").symlink_to("x.sock")
    with pytest.raises(CannotListen, match="is no socket"):
        claim(directory / "link.sock")


def test_a_path_the_kernel_cannot_hold_is_refused_by_its_length(directory):
    with pytest.raises(CannotListen, match="107 bytes"):
        claim(directory / ("x" * 100))


def test_a_directory_that_is_a_file_is_refused(directory):
    (directory / "file").write_text("")
    with pytest.raises(CannotListen, match="file"):
        claim(directory / "file" / "x.sock")
    with pytest.raises(CannotListen, match="cannot hold a socket"):
        claim(directory / "file" / "deeper" / "x.sock")


def test_a_directory_everybody_may_write_is_refused_unless_sticky(directory):
    directory.chmod(0o777)
    with pytest.raises(CannotListen, match="chmod o-w"):
        claim(directory / "x.sock")
    directory.chmod(0o1777)
    claim(directory / "x.sock")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(directory):
    os.chown(directory, 12_345, 12_345)
    with pytest.raises(CannotListen, match="uid 12345"):
        claim(directory / "x.sock")


def test_a_socket_is_never_wider_than_its_mode_even_for_a_moment(directory):
    before = os.umask(0)
    try:
        with created_with(0o660), socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(directory / "x.sock"))
            assert mode(directory / "x.sock") == 0o660
        assert os.umask(0) == 0
    finally:
        os.umask(before)


def test_only_our_own_socket_is_removed_at_the_end(directory, listener):
    path = directory / "x.sock"
    inode = path.stat().st_ino
    remove_if_ours(path, inode + 1)
    assert path.exists()
    remove_if_ours(path, inode)
    assert not path.exists()
    remove_if_ours(path, inode)
