"""What is asked of both architectures: each scenario is a question, a load, and the figure that answers it."""

from dataclasses import dataclass, replace

from asgictl.errors import ComparisonError

USERS = 32
MOST_ROUNDS = 10  # for as many there are quantiles in verdicts.STUDENT
SOCKETS = 1000
DEMO = "asgictl.demo:app"
HELLO, ECHO = "/hello", "/ws/echo"


@dataclass(frozen=True, slots=True)
class Scenario:
    """users: classes of users.py (or of a locustfile), `count` together. rate: of all together, 0 as fast as answered.

    metrics: what is judged: the first, or where the generator was the limit the first that it does not limit.
    fast: the only requests whose latency counts. event: what is done to the server in the middle of a run.
    """

    name: str
    question: str
    users: tuple[str, ...] = ("Hello",)
    count: int = USERS
    path: str = HELLO
    ws_path: str = ""
    rate: float = 0
    metrics: tuple[str, ...] = ("rate", "cost")
    unit: str = "request"
    fast: str = ""
    event: str = ""
    locustfile: str = ""


RATED = ("p99", "cost")
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
        Scenario("deploy", "New code is deployed under load: who notices?",
                 users=("Hello", "Echo"), count=40, ws_path=ECHO, rate=200, metrics=("lost",), event="reload"),
        Scenario("crash", "A process that runs the application is killed under load: who notices?",
                 users=("Hello", "Echo"), count=40, ws_path=ECHO, rate=200, metrics=("lost",), event="crash"),
    )
}  # fmt: skip
OF_ANY_TARGET = ("hello", "websocket", "idle", "deploy", "crash")


def choose(
    names: tuple[str, ...],
    target: str,
    path: str | None,
    ws_path: str | None,
    users: int | None,
    rate: float | None,
    locustfile: str | None = None,
) -> list[Scenario]:
    """Return these scenarios, or all that suit TARGET, with what was said of their load.

    Raises ComparisonError for one that asks of TARGET what only the demo has.
    """  # fmt: skip
    if locustfile:
        own = Scenario("locustfile", f"The users of {locustfile}", (), locustfile=locustfile, path=path or "/")
        return [_loaded(own, users, rate)]
    is_demo = target == DEMO
    suitable = [
        name for name in SCENARIOS if is_demo or (name in OF_ANY_TARGET and (ws_path or not _socket_only(name)))
    ]
    if strange := [name for name in names if name not in suitable]:
        raise ComparisonError(
            f"--scenario {strange[0]} is for the demo, or needs --ws-path; {target} can have {', '.join(suitable)}"
        )
    paths = (path, ws_path) if is_demo else (path or "/", ws_path or "")
    return [_loaded(_aimed(SCENARIOS[name], *paths), users, rate) for name in SCENARIOS if name in (names or suitable)]


def _aimed(scenario: Scenario, path: str | None, ws_path: str | None) -> Scenario:
    """Give it other paths, but for what only the demo has; where there is no WebSocket, nobody connects one."""
    path = path if path and scenario.path == HELLO else scenario.path
    ws_path = ws_path if ws_path is not None and scenario.ws_path == ECHO else scenario.ws_path
    users = scenario.users if ws_path or not scenario.ws_path else ("Hello",)
    return replace(scenario, path=path, ws_path=ws_path, users=users)


def _socket_only(name: str) -> bool:
    return "Hello" not in SCENARIOS[name].users


def _loaded(scenario: Scenario, users: int | None, rate: float | None) -> Scenario:
    """Give it another number of users or rate; what keeps to a rate is judged by its latency."""
    metrics = RATED if rate and scenario.metrics[0] == "rate" else scenario.metrics
    return replace(scenario, count=users or scenario.count, rate=rate or scenario.rate, metrics=metrics)
