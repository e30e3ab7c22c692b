"""A run directory is ours alone, or is not used."""

import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from asgictl.errors import RunDirectoryError
from asgictl.machine.run_dir import ROOM_BYTES, RunDir, not_found, unnamed
from tests.conftest import small_disk

SOMEBODY = 12345
as_root = pytest.mark.skipif(os.getuid() != 0, reason="NOT RUN: only root can play another user")


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "asgictl" / "shop"


@pytest.fixture
def made(where: Path) -> RunDir:
    run_dir = RunDir(where)
    assert run_dir.create()
    return run_dir


def test_it_is_made_for_its_owner_alone_and_found_again(where: Path, made: RunDir) -> None:
    assert made.path == where
    assert [stat.S_IMODE(level.stat().st_mode) for level in (where.parent, where)] == [0o700, 0o700]
    assert RunDir(where).exists
    assert not made.create()


def test_one_that_is_missing_holds_nothing_and_makes_nothing(where: Path) -> None:
    run_dir = RunDir(where)
    assert not run_dir.exists
    with pytest.raises(FileNotFoundError):
        run_dir.read("a")
    run_dir.remove()
    assert not where.parent.exists()


def test_what_leads_to_it_may_be_a_link_and_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    run_dir = RunDir(tmp_path / "link" / "asgictl" / "shop")
    run_dir.create()
    assert run_dir.path == tmp_path / "real" / "asgictl" / "shop"


def linked(level: Path) -> None:
    level.rename(level.with_name("elsewhere"))
    level.symlink_to("elsewhere")


def a_file(level: Path) -> None:
    level.rename(level.with_name("elsewhere"))
    level.write_text("")


SPOILS: dict[str, Callable[[Path], None]] = {
    "is a symbolic link": linked,
    "is not a directory": a_file,
    "mode 0777": lambda level: level.chmod(0o777),
    "mode 0770": lambda level: level.chmod(0o770),
    "mode 0750": lambda level: level.chmod(0o750),
    "mode 0701": lambda level: level.chmod(0o701),
    "mode 1777": lambda level: level.chmod(0o1777),
    f"belongs to uid {SOMEBODY}": lambda level: os.chown(level, SOMEBODY, SOMEBODY),
}


@pytest.mark.parametrize("depth", [0, 1], ids=["NAME", "asgictl"])
@pytest.mark.parametrize("wrong", SPOILS)
def test_a_level_that_is_not_ours_alone_is_refused_by_name_and_not_touched(
    where: Path, made: RunDir, wrong: str, depth: int
) -> None:
    if "uid" in wrong and os.getuid() != 0:
        pytest.skip("NOT RUN: only root can play another user")
    made.write("kept", "all of it")
    level = (where, where.parent)[depth]
    SPOILS[wrong](level)
    with pytest.raises(RunDirectoryError, match=rf"{level} .*{wrong}.*; remove it, or set XDG_RUNTIME_DIR"):
        RunDir(where)
    assert made.read("kept") == "all of it"


@pytest.mark.parametrize(
    ("mode", "uid", "wrong"),
    [(0o777, 0, "mode 0777, not sticky"), (0o775, 0, "mode 0775"), (0o1777, SOMEBODY, f"belongs to uid {SOMEBODY}")],
)
@pytest.mark.parametrize("depth", [0, 1])
@as_root
def test_above_it_nobody_else_may_rename(tmp_path: Path, mode: int, uid: int, wrong: str, depth: int) -> None:
    base = tmp_path / "a" / "b"
    base.mkdir(parents=True, mode=0o700)
    level = (base, base.parent)[depth]
    level.chmod(mode)
    os.chown(level, uid, uid)
    with pytest.raises(RunDirectoryError, match=rf"{level} .*{wrong}"):
        RunDir(base / "asgictl" / "shop").create()
    assert list(base.iterdir()) == []


def test_a_sticky_directory_of_roots_is_as_good_as_ours(tmp_path: Path) -> None:
    base = tmp_path / "tmp"
    base.mkdir()
    base.chmod(0o1777)
    assert RunDir(base / "asgictl-0" / "shop").create()


@as_root
def test_what_somebody_else_has_left_in_it_is_refused(where: Path, made: RunDir) -> None:
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind(str(where / "supervisor.sock"))
    os.chown(where / "supervisor.sock", SOMEBODY, SOMEBODY)
    with pytest.raises(RunDirectoryError, match=rf"supervisor.sock belongs to uid {SOMEBODY}"):
        RunDir(where)


def test_what_is_held_is_never_exchanged_for_what_took_its_name(where: Path, made: RunDir) -> None:
    made.write("kept", "ours")
    where.parent.rename(where.parent.with_name("moved"))
    where.mkdir(parents=True)
    (where / "kept").write_text("theirs")
    assert made.read("kept") == "ours"
    made.write("kept", "still ours")
    made.remove()
    assert (where / "kept").read_text() == "theirs"


def test_one_that_was_replaced_is_left_to_its_new_owner(where: Path, made: RunDir) -> None:
    """As by a start right after the stop that a `start` in the foreground has yet to notice."""
    RunDir(where).remove()
    assert not made.exists
    RunDir(where).create()
    made.remove()
    assert where.exists()


def test_links_in_it_are_neither_read_nor_written_nor_followed(tmp_path: Path, where: Path, made: RunDir) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "text").write_text("kept")
    (where / "directory").symlink_to(tmp_path / "precious")
    (where / "text").symlink_to(tmp_path / "precious" / "text")
    with pytest.raises(OSError, match="symbolic links"):
        made.read("text")
    made.write("text", "new")
    assert not (where / "text").is_symlink()
    with pytest.raises(RunDirectoryError):
        made.create_file("directory")
    made.mkdir("log")
    os.close(made.create_file("log/start.log"))
    made.clear()
    assert list(where.iterdir()) == []
    assert (tmp_path / "precious" / "text").read_text() == "kept"


def test_only_one_can_have_a_lock(where: Path, made: RunDir) -> None:
    assert made.lock()
    assert not RunDir(where).lock()
    with made.locked("changing") as first, RunDir(where).locked("changing") as second:
        assert (first, second) == (True, False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB and 12 files."""
    place = tmp_path / "disk"
    place.mkdir()
    with small_disk(place, "size=512k,nr_inodes=12") as disk:
        yield disk


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def test_a_full_disk_is_one_line_and_the_old_text_stays(disk: Path) -> None:
    run_dir = RunDir(disk / "asgictl" / "shop")
    run_dir.create()
    run_dir.check_room()
    run_dir.write("kept", "old")
    fill(disk)
    for writing in (partial(run_dir.write, "kept", "new" * 4096), run_dir.check_room):
        with pytest.raises(RunDirectoryError, match=r"^[^\n]*No space left on device; free some space[^\n]*$"):
            writing()
    assert run_dir.read("kept") == "old"
    assert os.listdir(run_dir.path) == ["kept"]


def test_a_little_room_is_none(disk: Path) -> None:
    run_dir = RunDir(disk / "asgictl" / "shop")
    run_dir.create()
    (disk / "filler").write_bytes(bytes((512 << 10) - ROOM_BYTES + 4096))
    with pytest.raises(RunDirectoryError, match="No space left"):
        run_dir.check_room()


@pytest.mark.parametrize("spare", [0, 1])
def test_without_inodes_nothing_of_it_is_made(disk: Path, spare: int) -> None:
    for number in range(11 - spare):
        (disk / str(number)).touch()
    with pytest.raises(RunDirectoryError, match="No space left"):
        RunDir(disk / "asgictl" / "shop").create()
    assert not (disk / "asgictl").exists()


def test_a_file_system_that_cannot_be_written_is_one_line(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(RunDirectoryError, match=r"Read-only file system; see who owns it and its mode"):
        RunDir(disk / "asgictl" / "shop").create()


@pytest.mark.parametrize(
    ("names", "meant"),
    [([], "default"), (["shop"], "shop"), (["blog", "default", "shop"], "default"), (["blog", "shop"], "")],
)
def test_without_a_name_the_default_or_the_only_instance_is_meant(names: list[str], meant: str) -> None:
    assert unnamed(names) == meant


def test_what_does_not_run_is_told_what_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert str(not_found("shop")) == "no instance 'shop' is running; start one with asgictl start"
    for name in ("blog", "news", "shop"):  # the last is being made, or was left
        (tmp_path / "asgictl" / name).mkdir(parents=True)
    assert str(not_found("shop")) == "no instance 'shop' is running; running: blog, news"
