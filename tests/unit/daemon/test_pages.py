"""Pages as files: whose they are, how many, and what happens to those that are in the way."""

import os
from pathlib import Path

import pytest

from costd.daemon.clients.pages import CLIENT_PAGE_BYTES, FilePages
from costd.model.allowance import Sums


@pytest.fixture
def socket(tmp_path):
    return tmp_path / "costd.sock"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "costd.sock.pages"


@pytest.fixture
def pages(socket):
    made = FilePages(socket, mode=0o660)
    yield made
    made.close()


def test_a_page_is_there_block_by_block_so_that_a_full_disk_kills_no_client(pages, folder):
    pages.open_client("ann")
    status = (folder / "ann").stat()
    assert status.st_size == CLIENT_PAGE_BYTES
    assert status.st_blocks * 512 >= CLIENT_PAGE_BYTES


def test_no_client_s_page_is_kept_open(pages):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(50):
        name = f"session-{number}"
        pages.open_client(name)
        assert pages.arm(name, 3, 41)
        assert pages.drawn(name, 3, 41) == Sums()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_slot_of_a_page_that_is_gone_cannot_be_armed(pages):
    pages.open_client("ann")
    pages.close_client("ann")
    assert not pages.arm("ann", 0, 1)
    assert pages.drawn("ann", 0, 1) is None


def test_a_disk_that_refuses_leaves_no_page(pages, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    pages.open_client("ann")
    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(os, "pread", full)
    assert pages.open_client("bob") == ""
    assert not pages.arm("ann", 0, 1)
    assert pages.drawn("ann", 0, 1) is None
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert pages.open_client("eve") == ""


def test_a_daemon_that_starts_deletes_pages_of_sessions_nobody_remembers(pages, folder):
    for name in ("ann", "bob"):
        pages.open_client(name)
    pages.keep_only({"ann"})
    assert sorted(path.name for path in folder.iterdir()) == ["ann", "daemon"]


def test_a_link_in_place_of_a_page_is_not_followed(pages, folder, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (folder / "ann").symlink_to(precious)
    assert pages.open_client("ann") == ""
    assert not pages.arm("ann", 0, 1)
    assert precious.read_text() == "kept"


def test_a_link_in_place_of_the_daemon_s_page_is_not_followed(socket, folder, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    folder.mkdir(mode=0o750)
    (folder / "daemon").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"):
        FilePages(socket, mode=0o660)
    assert precious.read_text() == "kept"


def test_a_folder_that_others_may_write_to_is_refused(socket, folder):
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="only the daemon writes to"):
        FilePages(socket, mode=0o660)


def test_a_link_in_place_of_the_folder_is_refused(socket, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="only the daemon writes to"):
        FilePages(socket, mode=0o660)
    assert not list(elsewhere.iterdir())


def test_others_get_at_the_pages_where_they_may_use_the_socket_and_else_no_more(socket, folder):
    for mode, folder_mode, page_mode in ((0o666, 0o755, 0o666), (0o660, 0o750, 0o660)):
        pages = FilePages(socket, mode=mode)
        pages.open_client("ann")
        pages.close()
        assert folder.stat().st_mode & 0o777 == folder_mode
        assert (folder / "ann").stat().st_mode & 0o777 == page_mode
        assert (folder / "daemon").stat().st_mode & 0o777 == page_mode & 0o644
