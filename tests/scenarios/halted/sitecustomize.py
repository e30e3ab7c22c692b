"""With this directory in PYTHONPATH interfaces note each step of a hand-over, and halt somebody after one of them.

HALTING: a directory. `steps` gets a line for each step that was carried out: pid, end, step, connection. `plan` says
what happens: end, step, the how manieth of that step in its process, signal, pid (0: this process's own). `halted` gets
the pid once that is done.
HANDOVER_SECONDS: another deadline of the hand-over.
"""

import os
import sys

if "HALTING" in os.environ and "interface" in sys.orig_argv:
    from collections import Counter
    from collections.abc import Callable, Iterator
    from functools import wraps
    from pathlib import Path
    from typing import Any

    from asgictl.interface import handover

    place = Path(os.environ["HALTING"])
    carried_out: Counter[tuple[str, str]] = Counter()
    handover.HANDOVER_SECONDS = float(os.environ.get("HANDOVER_SECONDS", handover.HANDOVER_SECONDS))

    class Steps(list[Any]):
        """What an end has decided: notes each step once its caller comes for the next."""

        end = ""

        def __iter__(self) -> Iterator[Any]:
            for step in super().__iter__():
                yield step
                note(self.end, step)

    def note(end: str, step: Any) -> None:
        said = getattr(step, "message", None)
        name = type(said).__name__ if said is not None else getattr(step, "name", type(step).__name__)
        connection = getattr(said if said is not None else step, "connection", "-")
        carried_out[end, name] += 1
        with (place / "steps").open("ab", buffering=0) as steps:
            steps.write(f"{os.getpid()} {end} {name} {connection}\n".encode())
        try:
            which, when, nth, signal, pid = (place / "plan").read_text().split()
        except FileNotFoundError:
            return
        if (which, when, int(nth)) == (end, name, carried_out[end, name]):
            (place / "halting").write_text(f"{int(pid) or os.getpid()}")
            (place / "halting").rename(place / "halted")
            (place / "plan").unlink()
            os.kill(int(pid) or os.getpid(), int(signal))

    def watch(end: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            does = method(*arguments, **named)
            if isinstance(does, Steps) or not isinstance(does, list):
                return does
            does = Steps(does)
            does.end = end
            return does

        return call

    for end, kind in (("old", handover.Predecessor), ("new", handover.Successor)):
        for name in ("offer", "heard", "quiet", "ended", "late", "cut", "fenced", "followed"):
            if method := getattr(kind, name, None):
                setattr(kind, name, watch(end, method))
