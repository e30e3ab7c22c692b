"""Two trees of asgictl side by side."""

import subprocess
from pathlib import Path

import pytest

from asgictl.loadtests.servers import Server
from asgictl.loadtests.usage import Usage
from benchmarks.against import ROOT, NoRevisionError, git, tree_of
from benchmarks.measuring import check_tree


def test_a_revision_is_checked_out_and_removed() -> None:
    with tree_of("HEAD") as tree:
        assert (tree / "asgictl" / "worker" / "__init__.py").is_file()
        assert str(tree) in git("worktree", "list")
    assert not tree.exists()
    assert str(tree) not in git("worktree", "list")


def test_what_is_no_revision_is_said() -> None:
    with pytest.raises(NoRevisionError, match="revision"), tree_of("no-such-revision"):
        pytest.fail("it was checked out")


def test_a_side_that_runs_another_tree_is_found(tmp_path: Path) -> None:
    usage = Usage(str(tmp_path), "controller")
    usage.pids = {}
    check_tree(Server(0, str(tmp_path), None, ROOT), usage)
    with pytest.raises(RuntimeError, match="is imported"):
        check_tree(Server(0, str(tmp_path), None, tmp_path), usage)
    with subprocess.Popen(["sleep", "60"], env={"PYTHONPATH": str(tmp_path)}) as process:
        usage.pids = {"worker": [process.pid]}
        with pytest.raises(RuntimeError, match=f"a process of worker imports from {tmp_path}"):
            check_tree(Server(0, str(tmp_path), None, ROOT), usage)
        process.kill()
