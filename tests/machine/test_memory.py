"""What is free of the memory that this process may have."""

from pathlib import Path

import psutil

from asgictl.machine.memory import free_and_total_bytes


def group(directory: Path, most: str, used: int) -> tuple[str, str]:
    (directory / "most").write_text(f"{most}\n")
    (directory / "used").write_text(f"{used}\n")
    return str(directory / "most"), str(directory / "used")


def test_a_control_group_s_limit_counts_where_it_is_less(tmp_path: Path) -> None:
    assert free_and_total_bytes((group(tmp_path, "1000000", 400_000),)) == (600_000, 1_000_000)


def test_without_a_limit_the_machine_s_memory_counts(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    for most in ("max", str(1 << 62)):
        free, found = free_and_total_bytes((group(tmp_path, most, 4), (str(tmp_path / "no"), str(tmp_path / "such"))))
        assert found == total
        assert 0 < free <= total
