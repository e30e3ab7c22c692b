"""What is asked of both architectures: each scenario is a question, a load, and the figure that answers it."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from asgictl.errors import ComparisonError

USERS = 32
MOST_ROUNDS = 12
SOCKETS = 1000
STORM_SOCKETS = 200
STORM_SECONDS = 4.0  # from one storm to the next
EVENTS = 100_000
DEMO = "asgictl.demo:app"
HELLO, ECHO = "/hello", "/ws/echo"
DJANGO = {"asgictl_app:app", "mysite.asgi:application", "mysite.wsgi:application"}  # examples/django_site
LATEST, CHAT = "/latest/", "/ws/chat/"
DJANGO_RATE = 40.0  # of what something is done to: what Django on ASGI does on one core while it starts anew


@dataclass(frozen=True, slots=True)
class Scenario:
    """users: classes of users.py (or of a locustfile), `count` together. rate: of all together, 0 as fast as answered.

    metrics: what is judged: the first, or where the generator was the limit the first that it does not limit.
    fast: the only requests whose latency counts. happenings: what is done to the server in mid-run, see happenings.py.
    patience_seconds: who waits longer has noticed. events: after so many the run ends, 0 for the time that it has.
    threads: of each process of a side, by its name, where they are not those of the comparison.
    """

    name: str
    question: str
    users: tuple[str, ...] = ("Hello",)
    count: int = USERS
    path: str = HELLO
    slow_path: str = "/sync?ms=200"
    ws_path: str = ""
    rate: float = 0
    metrics: tuple[str, ...] = ("rate", "cost")
    unit: str = "request"
    fast: str = ""
    happenings: tuple[str, ...] = ()
    patience_seconds: float = math.inf
    events: int = 0
    threads: dict[str, int] = field(default_factory=dict)
    locustfile: str = ""
    warmup: float = 1.0  # seconds


RATED = ("p99", "cost")
KILLED = ("application", "connections", "master", "redis")
SCENARIOS = {
    each.name: each
    for each in (
        Scenario("hello", "What does the way through Redis cost, when the application does nothing?"),
        Scenario("blocking", "5 ms of waiting in sync code, as for a database", path="/sync?ms=5"),
        Scenario("cpu", "5 ms of computing in sync code", path="/cpu?ms=5"),
        Scenario("async-io", "5 ms of waiting in async code: in-process's home game", path="/async?ms=5"),
        Scenario("mixed", "1 request in 20 takes 200 ms: what do the others feel?",
                 users=("Mixed",), rate=60, metrics=RATED, fast="fast"),
        Scenario("websocket", "Messages to and fro on WebSockets",
                 users=("Echo",), ws_path=ECHO, unit="message"),
        Scenario("broadcast", f"A chat room of {SOCKETS:,} sockets hears two messages a second",
                 users=("Listener", "Talker"), count=SOCKETS, ws_path="/ws/chat/compare", rate=2,
                 metrics=("cost",), unit="delivery"),
        Scenario("idle", "What does an open WebSocket cost that says nothing?",
                 users=("Idle",), count=SOCKETS, ws_path=ECHO, metrics=("kib",), unit="socket"),
        Scenario("django-view", "A page of Django's: a query and a template", path=LATEST),
        Scenario("django-write", "A form of somebody who is logged in: a session, and rows that are written",
                 users=("DjangoWriter",), count=8, path="/", warmup=5.0),
        Scenario("django-socket", "A message is saved, and sent to a room of four: it counts when its sender hears it",
                 users=("Room",), ws_path=CHAT, unit="message"),
        Scenario("django-mixed", "1 request in 20 is a report that waits 200 ms: what do the pages beside it feel?",
                 users=("Mixed",), path=LATEST, slow_path="/report/?ms=200", rate=60, metrics=RATED, fast="fast"),
        Scenario("deploy", "New code is deployed under load: who notices?",
                 users=("Hello", "Echo"), count=40, ws_path=ECHO, rate=200, metrics=("lost",), happenings=("deploy",)),
        Scenario("crash", "What a side depends on is killed under load, 5 s apart; a server is both application and "
                 "connections, and dies for each: who notices?",
                 users=("Hello", "Echo"), count=40, ws_path=ECHO, rate=200, metrics=("lost",), happenings=KILLED),
        Scenario("noisy", "One more request holds its interpreter (the GIL) for 2 s: who else waits over a second?",
                 users=("Hello", "Echo"), count=40, ws_path=ECHO, slow_path="/hold?ms=2000", rate=200,
                 metrics=("lost",), happenings=("noisy",), patience_seconds=1.0),
        Scenario("upgrade", "What holds connections is replaced under load: who notices?",
                 users=("Hello", "Echo"), count=40, ws_path=ECHO, rate=200, metrics=("lost",), happenings=("upgrade",)),
        Scenario("storm", f"{STORM_SOCKETS} sockets drop and connect again at one moment: when is each answered?",
                 users=("Returning",), count=STORM_SOCKETS, ws_path=ECHO, rate=STORM_SOCKETS / STORM_SECONDS,
                 metrics=RATED, unit="return"),
        Scenario("leak", "How much memory do many events leave behind?", users=("Hello", "Echo"), ws_path=ECHO,
                 metrics=("memory",), unit="event", events=EVENTS, warmup=3.0),
    )
}  # fmt: skip
OF_DJANGO = ("django-view", "django-write", "django-socket", "django-mixed", "deploy", "crash", "noisy", "upgrade")
OF_ANY_TARGET = ("hello", "websocket", "idle", "deploy", "crash", "upgrade", "storm", "leak")
BY_NAME = {"upgrade", "storm", "leak"}  # alone: 15 minutes do not hold them all


def choose(
    names: tuple[str, ...],
    targets: Collection[str],
    path: str | None,
    ws_path: str | None,
    users: int | None,
    rate: float | None,
    locustfile: str | None = None,
    events: int = EVENTS,
) -> list[Scenario]:
    """Return these scenarios, or all that suit the targets, with what was said of their load.

    Raises ComparisonError for one that asks of a target what it does not have.
    """  # fmt: skip
    if strange := [given for given in (path, ws_path) if given is not None and not given.startswith("/")]:
        raise ComparisonError(f"--path and --ws-path begin with /, as in /{strange[0]}")
    if locustfile and names:
        raise ComparisonError("-f stands for the scenarios: leave --scenario out")
    if locustfile:
        own = Scenario("locustfile", f"The users of {locustfile}", (), locustfile=locustfile, path=path or "/")
        return [_loaded(own, users, rate)]
    suitable = _suitable(set(targets), ws_path)
    if strange := [name for name in names if name not in suitable]:
        raise ComparisonError(
            f"--scenario {strange[0]} is for the demo or examples/django_site, or needs --ws-path; "
            f"{' and '.join(targets)} can have {', '.join(suitable)}"
        )
    usual = [name for name in suitable if name not in BY_NAME]
    wanted = [SCENARIOS[name] for name in SCENARIOS if name in (names or usual)]
    if set(targets) <= DJANGO:
        wanted = [_of_django(scenario, path) for scenario in wanted]
    elif set(targets) == {DEMO}:
        wanted = [_noted(_aimed(scenario, path, ws_path)) for scenario in wanted]
    else:
        wanted = [_aimed(scenario, path or "/", ws_path or "") for scenario in wanted]
    wanted = [replace(each, events=events) if each.events else each for each in wanted]
    return [_loaded(scenario, users, rate) for scenario in wanted]


def _suitable(targets: set[str], ws_path: str | None) -> list[str]:
    if targets <= DJANGO:
        return list(OF_DJANGO)
    if targets == {DEMO}:
        return [name for name in SCENARIOS if not name.startswith("django-")]
    return [name for name in OF_ANY_TARGET if ws_path or not _socket_only(name)]


def _of_django(scenario: Scenario, path: str | None) -> Scenario:
    """Aim what any target can have at the pages and rooms of examples/django_site."""
    if scenario.happenings:
        slow_path = f"/hold/?{scenario.slow_path.partition('?')[2]}"
        return replace(
            scenario, path=path or LATEST, slow_path=slow_path, ws_path=CHAT, users=("Hello", "Room"), rate=DJANGO_RATE
        )
    return replace(scenario, path=path) if path and scenario.path == LATEST else scenario


def _aimed(scenario: Scenario, path: str | None, ws_path: str | None) -> Scenario:
    """Give it other paths, but for what only the demo has; where there is no WebSocket, nobody connects one."""
    path = path if path and scenario.path == HELLO else scenario.path
    ws_path = ws_path if ws_path is not None and scenario.ws_path == ECHO else scenario.ws_path
    users = scenario.users if ws_path or not scenario.ws_path else ("Hello",)
    return replace(scenario, path=path, ws_path=ws_path, users=users)


def _noted(scenario: Scenario) -> Scenario:
    """Have what is asked for while processes are killed written down, since it may run twice."""
    if scenario.happenings != KILLED or (scenario.path, scenario.ws_path) != (HELLO, ECHO):
        return scenario
    return replace(scenario, users=("Noted", "NotedEcho"), path="/note", ws_path="/ws/note")


def _socket_only(name: str) -> bool:
    return "Hello" not in SCENARIOS[name].users


def _loaded(scenario: Scenario, users: int | None, rate: float | None) -> Scenario:
    """Give it another number of users or rate; what keeps to a rate is judged by its latency."""
    metrics = RATED if rate and scenario.metrics[0] == "rate" else scenario.metrics
    count = users or scenario.count
    usual = scenario.rate * count / scenario.count if scenario.unit == "return" else scenario.rate  # as often each
    return replace(scenario, count=count, rate=rate or usual, metrics=metrics)
