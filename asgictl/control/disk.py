"""Whether the disk of the run directory has room: without it lines of logs are lost, and Redis waits."""

import logging
import os
import time
from pathlib import Path

from asgictl.machine.run_dir import ROOM_BYTES

logger = logging.getLogger("asgictl.controller")


class Disk:
    """check() is to be called each second. warning: what an operator is to know, "" while there is room."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._full_at = 0.0
        self.warning: str = ""

    def check(self) -> None:
        """Query the room that is left; log when there is none, which may be lost, and when there is some again."""
        try:
            found = os.statvfs(self._run_dir)
        except OSError:  # somebody has removed it
            return
        is_full = found.f_bavail * found.f_frsize < ROOM_BYTES or (found.f_files > 0 and found.f_favail == 0)
        if is_full and not self.warning:
            self._full_at = time.time()
            self.warning = f"the disk of {self._run_dir} is full: log lines are lost, and Redis waits; free some space"
            logger.error("%s", self.warning)
        elif self.warning and not is_full:
            self.warning, seconds = "", time.time() - self._full_at
            logger.error("the disk of %s was full for %.0f s: log lines were lost", self._run_dir, seconds)
