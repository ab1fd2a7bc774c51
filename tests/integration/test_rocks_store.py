"""RocksDB under the store: deaths, damage, full disks, and sizes that stay bounded."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from costd.engine.changes import Family
from costd.errors import StoreCorrupt, StoreUnavailable
from costd.model.counter import Counter
from costd.store.rocks import CACHED_COUNT_MAX, RocksStore
from costd.store.rocks_options import MIB, WAL_BYTES_MAX

NOBODY_UID = 65_534

CHILD = """
import itertools, os, sys
from pathlib import Path
from costd.engine.changes import Family
from costd.model.counter import Counter
from costd.store.rocks import RocksStore

path, last = Path(sys.argv[1]), int(sys.argv[2])
store = RocksStore(path)
first = store.get(Family.RATES, b"last") or 0
for number in range(first + 1, last + 1):
    key = number.to_bytes(8, "big")
    store.commit([
        (Family.COUNTERS, key, Counter(settled=number)),
        (Family.RATES, b"last", number),
        (Family.DUE, key, b""),
        (Family.DUE, (number - 1).to_bytes(8, "big"), None),
        (Family.META, key, b"x" * (number % 700)),
    ])
    os.write(1, b"%d\\n" % number)
os._exit(0)
"""
"""Commits numbered batches, says so after each, and dies without closing the store."""


def start_child(path: Path, last: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(last)], stdout=subprocess.PIPE
    )


def batches_in(store: RocksStore) -> int:
    """Return the number of the last batch, having checked that all up to it are whole."""
    last = store.get(Family.RATES, b"last") or 0
    numbers = [(number.to_bytes(8, "big"), number) for number in range(1, last + 1)]
    assert list(store.scan(Family.COUNTERS)) == [(k, Counter(settled=n)) for k, n in numbers]
    assert list(store.scan(Family.META)) == [(k, b"x" * (n % 700)) for k, n in numbers]
    assert list(store.scan(Family.DUE)) == [(key, b"") for key, _ in numbers[-1:]]
    return last


def test_what_was_reported_survives_kill_9_and_no_half_batch_is_seen(tmp_path):
    path, chance, reported = tmp_path / "store", random.Random(20_261_122), 0
    for _ in range(12):
        child = start_child(path, last=10**9)
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(chance.randint(1, 400))]
        child.kill()
        lines += child.stdout.read().splitlines(keepends=True)
        child.stdout.close()
        child.wait()
        reported = int([line for line in lines if line.endswith(b"\n")][-1])
        store = RocksStore(path)
        assert batches_in(store) in {reported, reported + 1}
        store.close()
    assert reported > 12


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A store of 500 batches, the first 200 in tables, the rest only in the write-ahead log."""
    path = tmp_path_factory.mktemp("killed") / "store"
    for last in (200, 500):
        child = start_child(path, last)
        child.communicate()
        assert child.returncode == 0
    return path


@pytest.fixture
def damaged(killed, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(killed, tmp_path / "store")


def only(path: Path, pattern: str) -> Path:
    """The largest file of this kind."""
    return max(path.glob(pattern), key=lambda file: file.stat().st_size)


def flip(file: Path, at: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(at * (len(content) - 1))] ^= 0x5A
    file.write_bytes(content)


def test_a_killed_store_opens_whole(damaged):
    store = RocksStore(damaged)
    assert batches_in(store) == 500
    store.close()


@pytest.mark.parametrize("cut_bytes", [1, 40, 300])
def test_a_torn_last_record_is_forgotten_and_the_rest_is_there(damaged, cut_bytes):
    log = only(damaged, "*.log")
    os.truncate(log, log.stat().st_size - cut_bytes)
    store = RocksStore(damaged)
    assert batches_in(store) == 499
    store.close()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no CURRENT": lambda path: (path / "CURRENT").unlink(),
    "empty CURRENT": lambda path: (path / "CURRENT").write_bytes(b""),
    "CURRENT names no file": lambda path: (path / "CURRENT").write_text("MANIFEST-999999\n"),
    "manifest's first half flipped": lambda path: flip(only(path, "MANIFEST-*"), 0.3),
    "manifest's end flipped": lambda path: flip(only(path, "MANIFEST-*"), 1),
    "empty manifest": lambda path: os.truncate(only(path, "MANIFEST-*"), 0),
    "manifest missing": lambda path: only(path, "MANIFEST-*").unlink(),
    "log's start flipped": lambda path: flip(only(path, "*.log"), 0),
    "log's middle flipped": lambda path: flip(only(path, "*.log"), 0.5),
    "logs missing": lambda path: [log.unlink() for log in path.glob("*.log")],
    "table's end flipped": lambda path: flip(only(path, "*.sst"), 1),
    "table cut": lambda path: os.truncate(only(path, "*.sst"), 700),
    "table missing": lambda path: only(path, "*.sst").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_store_is_refused_and_left_as_it_is(damaged, damage):
    damage(damaged)
    kept = {file.name: file.read_bytes() for file in damaged.glob("*.sst")}
    with pytest.raises(StoreCorrupt, match="restore it from a backup"):
        RocksStore(damaged)
    with pytest.raises(StoreCorrupt):
        RocksStore(damaged)
    assert {name: (damaged / name).read_bytes() for name in kept} == kept


def test_a_flipped_value_is_refused_when_it_is_read_and_no_listing_is_cut_short(damaged):
    table = only(damaged, "*.sst")
    flip(table, 0.01)
    store = RocksStore(damaged)
    families = [family for family in Family if is_refused(lambda f=family: list(store.scan(f)))]
    assert len(families) == 1, "one table, one family"
    key = (1).to_bytes(8, "big")
    assert is_refused(lambda: store.get(families[0], key))
    store.close()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_listing_that_meets_damage_halfway_says_so(tmp_path, reverse):
    store, chance = RocksStore(tmp_path / "store"), random.Random(1)
    store.commit([(Family.META, b"%04d" % n, chance.randbytes(100)) for n in range(2_000)])
    store.close()
    flip(only(tmp_path / "store", "*.sst"), 0.5)
    store, seen = RocksStore(tmp_path / "store"), []
    assert is_refused(lambda: seen.extend(store.scan(Family.META, reverse=reverse)))
    assert 500 < len(seen) < 1_500
    store.close()


def is_refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except StoreCorrupt as error:
        return "damaged" in str(error)
    return False


def test_a_directory_that_is_no_store_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreCorrupt, match=r"no CURRENT.*name another directory"):
        RocksStore(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("written", "said"),
    [(b"2", "format 2, this costd reads format 1.*newer"), (b"", "does not say"), (None, "found")],
)
def test_a_store_of_another_format_is_refused(tmp_path, written, said):
    RocksStore(tmp_path / "store").close()
    options = Options(raw_mode=True)
    families = dict.fromkeys(["default", *Family, "of tomorrow"], options)
    options.create_missing_column_families(True)
    database = Rdict(str(tmp_path / "store"), options, column_families=families)
    if written is None:
        database.delete(b"format")
    else:
        database.put(b"format", written)
    database.close()
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match=said):
            RocksStore(tmp_path / "store")


def test_a_store_made_before_a_family_was_added_opens_with_it_empty(tmp_path):
    store = RocksStore(tmp_path / "store")
    store.commit([(Family.META, b"k", b"v")])
    store.close()
    options = Options(raw_mode=True)
    database = Rdict(
        str(tmp_path / "store"),
        options,
        column_families=dict.fromkeys(["default", *Family], options),
    )
    database.drop_column_family(Family.LEASES)
    database.close()
    assert Family.LEASES not in Rdict.list_cf(str(tmp_path / "store"), options)
    store = RocksStore(tmp_path / "store")
    assert store.get(Family.META, b"k") == b"v"
    assert list(store.scan(Family.LEASES)) == []
    store.commit([(Family.LEASES, b"k", b"")])
    assert store.get(Family.LEASES, b"k") == b""
    store.close()


def test_a_missing_directory_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "a" / "b" / "store"
    RocksStore(path).close()
    assert path.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["store"]


def test_an_empty_directory_becomes_a_store(tmp_path):
    (tmp_path / "store").mkdir()
    store = RocksStore(tmp_path / "store")
    store.commit([(Family.META, b"k", b"v")])
    store.close()


def test_what_a_daemon_killed_while_making_its_store_left_behind_goes(tmp_path):
    (tmp_path / ".store.new-abc").mkdir()
    (tmp_path / ".store.new-abc" / "CURRENT").write_text("half made")
    RocksStore(tmp_path / "store").close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_second_store_in_the_same_process_is_refused(tmp_path):
    store = RocksStore(tmp_path / "store")
    with pytest.raises(StoreUnavailable, match="another daemon holds"):
        RocksStore(tmp_path / "store")
    store.commit([(Family.META, b"k", b"v")])
    store.close()
    again = RocksStore(tmp_path / "store")
    assert again.get(Family.META, b"k") == b"v"
    again.close()


def test_a_second_process_is_refused_until_the_first_one_ends(tmp_path):
    child = start_child(tmp_path / "store", last=10**9)
    assert child.stdout is not None
    child.stdout.readline()
    with pytest.raises(StoreUnavailable, match="another daemon holds"):
        RocksStore(tmp_path / "store")
    child.kill()
    child.communicate()
    RocksStore(tmp_path / "store").close()


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreUnavailable, match=r"cannot use .*file.*for the store"):
            RocksStore(path)


@contextmanager
def as_somebody_who_may_not_write(folder: Path) -> Iterator[None]:
    folder.chmod(0o500)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY_UID)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_a_directory_that_may_not_be_written_is_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with (
        as_somebody_who_may_not_write(folder),
        pytest.raises(StoreUnavailable, match="Permission denied; name a directory"),
    ):
        RocksStore(folder / "store")


def test_evicted_values_are_read_back_from_rocksdb(tmp_path):
    store, count = RocksStore(tmp_path / "store"), CACHED_COUNT_MAX[Family.COUNTERS] + 500
    keys = [number.to_bytes(8, "big") for number in range(count)]
    store.commit([(Family.COUNTERS, key, Counter(settled=n)) for n, key in enumerate(keys)])
    assert [store.get(Family.COUNTERS, key) for key in keys] == [
        Counter(settled=number) for number in range(count)
    ]
    store.close()


def test_a_clean_stop_leaves_nothing_to_replay(tmp_path):
    store = RocksStore(tmp_path / "store")
    store.commit([(Family.RATES, b"k", 1), (Family.META, b"k", b"v"), (Family.DUE, b"k", b"")])
    store.close()
    assert sum(log.stat().st_size for log in (tmp_path / "store").glob("*.log")) == 0


def test_windows_that_come_and_go_leave_the_store_bounded(tmp_path):
    store, chance, peak_bytes = RocksStore(tmp_path / "store"), random.Random(1), 0
    for generation in range(1_000):
        end = generation.to_bytes(8, "big")
        store.commit(
            [
                (Family.COUNTERS, end + chance.randbytes(12), some_counter(chance))
                for _ in range(1_000)
            ]
        )
        store.commit([(Family.DUE, end + b"%d" % number, b"") for number in range(100)])
        store.delete_range(Family.COUNTERS, b"", end)
        for key, _ in store.scan(Family.DUE, end=end):
            store.commit([(Family.DUE, key, None)])
        peak_bytes = max(peak_bytes, store.size_bytes())
    assert sum(1 for _ in store.scan(Family.COUNTERS)) == 1_000
    assert sum(1 for _ in store.scan(Family.DUE)) == 100
    store.close()
    assert peak_bytes < WAL_BYTES_MAX + 20 * MIB, "the log may hold what tables no longer do"
    assert store.size_bytes() < 20 * MIB, "a million counters would take 40 MiB"


def some_counter(chance: random.Random) -> Counter:
    """One that no compression makes smaller."""
    return Counter(settled=chance.getrandbits(60), changed_ns=chance.getrandbits(60))


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> Path:
    """Leave no room but for what was set aside already."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 65_536)
    assert shutil.disk_usage(disk).free == 0
    return ballast


def test_a_full_disk_refuses_loses_nothing_and_recovers_when_there_is_room(small_disk):
    store, kept, refused = RocksStore(small_disk / "store"), [], []
    for cycle in range(2):
        ballast = fill(small_disk)
        for number in range(10_000):
            key = b"%d:%05d" % (cycle, number)
            try:
                store.commit([(Family.META, key, b"v" * 1_000), (Family.RATES, key, number)])
            except StoreUnavailable as error:
                assert "disk is full" in str(error)  # noqa: PT017  the loop is the point
                refused.append(key)
                break
            kept.append(key)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            store.commit([(Family.META, b"refused too", b"")])
        assert store.get(Family.META, refused[-1]) is None
        assert store.get(Family.RATES, refused[-1]) is None
        assert [key for key, _ in store.scan(Family.META)] == kept
        ballast.unlink()
        recover(store, b"%d:recovered" % cycle)
        kept.append(b"%d:recovered" % cycle)
    store.close()
    assert len(refused) == 2
    again = RocksStore(small_disk / "store")
    assert [key for key, _ in again.scan(Family.META)] == kept
    assert not set(refused) & {key for key, _ in again.scan(Family.RATES)}
    again.close()


def recover(store: RocksStore, key: bytes) -> None:
    """Commit until RocksDB has seen the room: it looks every five seconds."""
    deadline_s = time.monotonic() + 60
    while True:
        try:
            return store.commit([(Family.META, key, b"")])
        except StoreUnavailable:
            assert time.monotonic() < deadline_s, "no recovery within a minute"
            time.sleep(0.05)


def test_a_full_disk_survives_kill_9(small_disk):
    path = small_disk / "store"
    ballast = fill_after_making(path)
    child = start_child(path, last=10**9)
    out, _ = child.communicate()  # it dies of StoreUnavailable
    assert child.returncode == 1
    ballast.unlink()
    store = RocksStore(path)
    assert batches_in(store) == int(out.splitlines()[-1])
    store.close()


def test_a_store_closed_on_a_full_disk_says_so_and_opens_whole_once_there_is_room(small_disk):
    store = RocksStore(small_disk / "store")
    store.commit([(Family.META, b"kept", b"v"), (Family.RATES, b"kept", 1)])
    ballast = fill(small_disk)
    with pytest.raises(StoreUnavailable, match="disk is full"):
        store.commit([(Family.META, b"refused", b"v" * 100_000)])
    with pytest.raises(StoreUnavailable, match="cannot close"):
        store.close()
    with pytest.raises(StoreUnavailable, match="make room and start"):
        RocksStore(small_disk / "store")
    ballast.unlink()
    again = RocksStore(small_disk / "store")
    assert list(again.scan(Family.META)) == [(b"kept", b"v")]
    assert again.get(Family.RATES, b"kept") == 1
    again.close()


def test_a_store_that_found_no_room_to_be_made_leaves_nothing_behind(small_disk):
    ballast = fill(small_disk)
    with pytest.raises(StoreUnavailable, match="make room and start"):
        RocksStore(small_disk / "store")
    assert list(small_disk.iterdir()) == [ballast]


def test_a_mount_point_is_refused_with_advice(small_disk):
    with pytest.raises(StoreUnavailable, match="busy; name a directory of its own"):
        RocksStore(small_disk)
    assert list(small_disk.parent.iterdir()) == [small_disk]


def fill_after_making(path: Path) -> Path:
    RocksStore(path).close()
    ballast = fill(path.parent)
    os.truncate(ballast, ballast.stat().st_size - 8 * 1024 * 1024)
    return ballast
