"""What an instance is to be, beside supervisor.conf."""

import re

from asgictl.control.description import STOP_SECONDS, stop_seconds
from asgictl.control.instance import CONFIGURATION


def test_stops_last_as_long_as_supervisord_waits() -> None:
    sections = re.split(r"^\[", CONFIGURATION.read_text(), flags=re.M)
    for group, seconds in STOP_SECONDS.items():
        (section,) = [each for each in sections if each.startswith(f"fcgi-program:{group}]")]
        assert f"\nstopwaitsecs = {seconds}\n" in section
        assert stop_seconds(group, {"ASGICTL_DRAIN_SECONDS": "600"}) == seconds
    assert stop_seconds("worker", {"ASGICTL_DRAIN_SECONDS": "600.5"}) == 640
    assert stop_seconds("worker", {}) == 40
