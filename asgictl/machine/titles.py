"""What ps and top call the processes of an instance."""

import os
import sys


def set_title(process: str, name: str) -> None:
    """Name this process `asgictl: PROCESS [NAME]`; its environment, which tells whose it is, stays as it is."""
    if sys.platform == "darwin":  # a title would make its children crash
        return
    os.environ["SPT_NOENV"] = "1"  # else a title takes the room of the environment that others see
    from setproctitle import setproctitle

    setproctitle(f"asgictl: {process} [{name}]")
