"""How many users there are: locust -f loadtests/users.py,loadtests/shapes.py. A fixed rate is the users' --rate."""

from typing import Any

from locust import LoadTestShape


class Ramp(LoadTestShape):
    """Climbs to --users over the first half of --run-time, and holds them for the second."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Return users, and how many of them may start in a second; None at the end."""
        options: Any = self.runner and self.runner.environment.parsed_options
        users, seconds = options.num_users or 1, float(options.run_time or 60)
        elapsed = float(self.get_run_time())  # type: ignore[no-untyped-call]
        if elapsed > seconds:
            return None
        return max(1, round(users * min(1.0, elapsed / (seconds / 2)))), float(users)
