"""Runs a suite in a process of its own, since Django is configured once in each."""

import subprocess
import sys
from pathlib import Path

SECONDS = 100


def run_suite(name: str) -> None:
    """Run a module of tests beside this one; fails if one of them does."""
    suite = Path(__file__).with_name(name)
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-o", "asgictl_real_sends=true"]  # to a Redis of its own
    command = [sys.executable, "-m", "pytest", "-q", *options, str(suite)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
