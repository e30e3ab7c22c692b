"""A disk that fills up and has room again."""

import os
from pathlib import Path

import pytest

from asgictl.control.disk import Disk

BLOCKS = 4096


def stat(free_bytes: int, files: int = 100, free_files: int = 10) -> os.statvfs_result:
    free = free_bytes // BLOCKS
    return os.statvfs_result((BLOCKS, BLOCKS, 1 << 20, free, free, files, free_files, free_files, 0, 255))


def test_a_full_disk_is_a_warning_while_it_lasts_and_logged_at_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk, now = Disk(tmp_path), 100.0
    monkeypatch.setattr("asgictl.control.disk.time.time", lambda: now)
    seen = []
    for found in (stat(1 << 30), stat(1 << 10), stat(0), stat(1 << 30), stat(1 << 30, 100, 0), stat(1 << 30, 0, 0)):
        monkeypatch.setattr("asgictl.control.disk.os.statvfs", lambda _: found)  # noqa: B023
        disk.check()
        seen.append("is full" in disk.warning)
        now += 10.0
    assert seen == [False, True, True, False, True, False]  # the last file system counts no files
    ends = ("is full", "was full for 20 s", "is full", "was full for 10 s")
    assert [message.partition(": ")[0] for message in caplog.messages] == [
        f"the disk of {tmp_path} {end}" for end in ends
    ]


def test_a_run_directory_that_was_removed_tells_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "absent")
    disk.check()
    assert disk.warning == ""
