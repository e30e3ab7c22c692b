"""The command line: what it refuses, with which status and which words."""

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asgictl import __version__
from asgictl.cli.main import main
from asgictl.cli.start import start
from asgictl.config import InstanceConfig, InterfaceConfig, WorkerConfig
from asgictl.errors import NEEDS_ATTENTION_STATUS, AsgictlError


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    roles = (
        "INTERFACES",
        "SERVER",
        "LOG_FORMAT",
        "UVICORN_OPTION",
        "GUNICORN_OPTION",
        "TIMEOUT",
        "ONLY_CHANNELS",
        "EXCLUDE_CHANNELS",
        "MAX_EVENTS",
        "MAX_MEMORY_MIB",
        "CAPACITY",
        "ROOT_PATH",
        "ALLOWED_ORIGINS",
        "LIMIT",
        "APP_DIR",
    )
    for name in ("REDIS", "NAME", "BIND", "TARGET", "THREADS", "RUN_DIR", "WORKERS", "MODE", *roles):
        monkeypatch.setenv(f"ASGICTL_{name}", "")  # so that it is restored: commands set some
        monkeypatch.delenv(f"ASGICTL_{name}")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "frobnicate"),
        (["start", "--frobnicate"], "--frobnicate"),
        (["start", "--port", "9121"], "No such option '--port': use --bind HOST:PORT."),
        (["interface", "--host=::1"], "No such option '--host': use --bind HOST:PORT."),
        (["worker", "--port", "9121"], "No such option '--port'"),
        (["start", "--mode", "both"], "'split', 'inprocess'"),
        (["start", "--workers", "0"], "--workers"),
        (["start", "--workers", "many"], "--workers"),
        (["start", "--threads", "-1"], "--threads"),
        (["start", "--interfaces", "17"], "--interfaces"),
        (["start", "--name", "a b"], "letters, digits, - and _"),
        (["status", "--name", "x" * 33], "1 to 32"),
        (["start", "a:b", "c:d"], "c:d"),
        (["start", "--allowed-origins", "example.com"], "use scheme://host"),
        (["interface", "--redis", "redis://h", "--allowed-origins", "https://example.com/"], "no path"),
        (["start", "--mode", "inprocess", "--interfaces", "2"], "--interfaces does not apply"),
        (
            ["start", "--mode", "inprocess", "--affinity", "client", "--workers", "2"],
            "--affinity=client does not apply",
        ),
        (["start", "--affinity", "cookie"], "'connection', 'client'"),
        (["start", "--server", "apache"], "'uvicorn', 'daphne', 'hypercorn'"),
        (["interface"], "--redis"),
        (["worker"], "--redis"),
        (["worker", "--redis", "redis://h", "--timeout", "-1"], "--timeout"),
        (["start", "--gunicorn-option", "timeout=3"], "--gunicorn-option does not apply to --mode=split"),
        (["start", "--uvicorn-option", "port=3"], "port cannot be set: use --bind"),
        (["start", "--log-format", "xml"], "--log-format"),
        (["start", "--limit", "headers=3"], "there is no headers: the names are header_bytes, "),
        (
            ["start", "--limit", "fragments=9", "--limit", "header_seconds=soon"],
            "'soon' is not a whole number of at least 1",
        ),
        (["interface", "--redis", "redis://h", "--limit", "fragments"], "fragments: '' is not a whole number"),
        (["config", "show", "--frobnicate"], "--frobnicate"),
        (["start", "--timeout", "soon"], "--timeout"),
        (["start", "--max-events", "-1"], "--max-events"),
        (["start", "--max-memory-mib", "1.5"], "--max-memory-mib"),
        (["start", "--capacity", "0"], "--capacity"),
        (["start", "--max-message-bytes", "0"], "--max-message-bytes"),
        (["dead-letters", "frobnicate"], "frobnicate"),
        (["dead-letters", "show"], "ID"),
        (["send"], "give either --channel"),
        (["send", "--channel", "c", "--group", "g"], "give either --channel"),
        (["send", "--channel", "c"], "--channel takes --json"),
        (["send", "--channel", "c", "--json", "{}", "--text", "x"], "--channel takes --json"),
        (["send", "--channel", "c", "--json", "{"], "not JSON"),
        (["send", "--group", "g", "--text", "x", "--json", "{}"], "--group takes"),
        (["send", "--group", "g", "--text", "x", "--delay-seconds", "1"], "--group takes"),
        (["send", "--channel", "c", "--json", "{}", "--delay-seconds", "soon"], "--delay-seconds"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_and_exits_with_2(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["status", "stop"])
def test_an_instance_that_does_not_run_is_one_clear_line_and_exits_with_7(command: str) -> None:
    result = run(command, "--name", "shop")
    assert result.exit_code == 7
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "no instance 'shop' is running" in result.stderr
    assert "asgictl start" in result.stderr


@pytest.mark.parametrize("command", [["list"], ["show", "1-1"], ["purge"]])
def test_dead_letters_of_an_instance_that_does_not_run_want_to_be_told_where(command: list[str]) -> None:
    result = run("dead-letters", *command, "--name", "shop")
    assert (result.exit_code, result.stderr.count("\n")) == (7, 1)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[WorkerConfig]:
    """What workers were told to be."""
    told: list[WorkerConfig] = []
    monkeypatch.setattr("asgictl.worker.process.serve", lambda config, *_: told.append(config))
    monkeypatch.setattr("asgictl.app.runtime.enter", lambda _: None)
    monkeypatch.setattr("asgictl.cli.roles.set_up", lambda *_: None)
    monkeypatch.setattr("asgictl.cli.roles.raise_file_limit", lambda: None)
    return told


def test_a_worker_is_what_its_options_say(served: list[WorkerConfig]) -> None:
    options = ("--only-channels", "http.*", "--only-channels", "*.slow", "--exclude-channels", "*.fast")
    more = ("--timeout", "0.5", "--max-events", "9", "--max-memory-mib", "2", "--threads", "3", "--name", "shop")
    here = os.getcwd()
    assert run("worker", "m:a", "--redis", "redis://h", *options, *more).exit_code == 0
    assert served == [
        WorkerConfig("shop", "redis://h", "m:a", 3, ("http.*", "*.slow"), ("*.fast",), 0.5, 9, 2 << 20, app_dir=here)
    ]


def test_a_worker_is_what_its_environment_says(served: list[WorkerConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGICTL_REDIS", "redis://h")
    monkeypatch.setenv("ASGICTL_ONLY_CHANNELS", "http.* *.slow 'a b'")
    monkeypatch.setenv("ASGICTL_EXCLUDE_CHANNELS", "")
    monkeypatch.setenv("ASGICTL_TIMEOUT", "7")
    assert run("worker", "m:a").exit_code == 0
    assert [(config.only, config.exclude, config.timeout_seconds) for config in served] == [
        (("http.*", "*.slow", "a b"), (), 7)
    ]


@pytest.fixture
def interfaces(monkeypatch: pytest.MonkeyPatch) -> list[InterfaceConfig]:
    """What interfaces were told to be."""
    told: list[InterfaceConfig] = []

    def serve(config: InterfaceConfig, _readiness: object) -> int:
        told.append(config)
        return 0

    monkeypatch.setattr("asgictl.interface.process.serve", serve)
    monkeypatch.setattr("asgictl.cli.roles.set_up", lambda *_: None)
    return told


def test_an_interface_is_hosted_by_the_server_it_is_told(
    interfaces: list[InterfaceConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGICTL_SERVER", "hypercorn")
    assert run("interface", "--redis", "redis://h").exit_code == 0
    assert run("interface", "--redis", "redis://h", "--server", "daphne").exit_code == 0
    assert [config.server for config in interfaces] == ["hypercorn", "daphne"]


def test_an_interface_has_the_limits_that_it_is_told(
    interfaces: list[InterfaceConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGICTL_LIMIT", "fragments=7 header_seconds=3")
    assert run("interface", "--redis", "redis://h").exit_code == 0
    assert run("interface", "--redis", "redis://h", "--limit", "header_bytes=5").exit_code == 0
    assert [(each.limits.fragments, each.limits.header_seconds, each.limits.header_bytes) for each in interfaces] == [
        (7, 3, 64 << 10),
        (1024, 10, 5),
    ]


def test_an_instance_hands_limits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Exception):
        pass

    def start(_self: object, config: InstanceConfig) -> None:
        raise Told(config.options["ASGICTL_LIMIT"])

    monkeypatch.setattr("asgictl.control.instance.Instance.start", start)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    result = run("start", "--limit", "fragments=7", "--limit", "header_seconds=3")
    assert str(result.exception) == "fragments=7 header_seconds=3"


@pytest.mark.parametrize(
    "arguments",
    [
        ["start", "--uvicorn-option", "backlog=9"],
        ["start", "--mode", "inprocess", "--gunicorn-option", "timeout=9"],
        ["interface", "--redis", "redis://h", "--uvicorn-option", "backlog=9"],
    ],
)
def test_what_is_for_uvicorn_is_refused_on_another_server(arguments: list[str]) -> None:
    result = run(*arguments, "--server", "daphne")
    assert result.exit_code == 2
    assert "do not apply to --server=daphne" in result.output


def test_an_instance_hands_the_options_of_its_roles_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Exception):
        pass

    def start(_self: object, config: InstanceConfig) -> None:
        assert config.options["ASGICTL_ONLY_CHANNELS"] == "'http.*' 'a b'"
        assert config.options["ASGICTL_EXCLUDE_CHANNELS"] == ""
        assert (config.options["ASGICTL_TIMEOUT"], config.options["ASGICTL_CAPACITY"]) == ("60.0", "5")
        raise Told

    monkeypatch.setattr("asgictl.control.instance.Instance.start", start)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    result = run("start", "--only-channels", "http.*", "--only-channels", "a b", "--capacity", "5")
    assert isinstance(result.exception, Told)


@pytest.mark.parametrize(("given", "told"), [("3", (3, None)), ("2..8", (2, (2, 8)))])
def test_workers_may_be_as_many_as_the_load_needs(given: str, told: object, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Exception):
        pass

    def start(_self: object, config: InstanceConfig) -> None:
        assert (config.workers, config.autoscale) == told
        raise Told

    monkeypatch.setattr("asgictl.control.instance.Instance.start", start)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert isinstance(run("start", "--workers", given).exception, Told)


def test_gunicorn_has_a_fixed_number_of_workers() -> None:
    result = run("start", "--mode", "inprocess", "--workers", "2..8")
    assert result.exit_code == 2
    assert "gunicorn's number of workers is fixed" in result.output


@pytest.mark.parametrize("command", ["status", "stop"])
def test_asking_for_an_instance_leaves_nothing_behind(command: str, tmp_path: Path) -> None:
    run(command)
    assert [path.name for path in tmp_path.rglob("*")] == ["project"]


@pytest.mark.parametrize(("variable", "status"), [("ASGICTL_BIND", 4), ("ASGICTL_NAME", 2), ("ASGICTL_MODE", 2)])
def test_a_mistake_in_the_environment_is_told_like_one_on_the_command_line(
    variable: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "not good")
    result = run("start")
    assert result.exit_code == status
    assert "not good" in result.output or "1 to 32" in result.output


def test_a_malformed_address_exits_with_4() -> None:
    result = run("start", "--bind", "8000")
    assert result.exit_code == 4
    assert result.stderr.startswith("Error: --bind 8000: not an address")


def test_help_and_version_succeed() -> None:
    assert __version__ in run("--version").output
    listed = run("-h")
    assert listed.exit_code == 0
    assert all(
        command in listed.output for command in ("start", "stop", "status", "interface", "worker", "dead-letters")
    )
    assert "controller" not in listed.output


SETTINGS = """
workers = 3
bind = "127.0.0.1:1"
redis = "redis://:hunter2@h"
only-channels = ["http.*", "a b"]
capacity = 9
name = "shop"
interfaces = 2
"""


def shown(*flags: str) -> dict[str, tuple[object, str]]:
    result = run("config", "show", "--json", *flags)
    assert result.exit_code == 0, result.output
    return {key: (each["value"], each["source"]) for key, each in json.loads(result.output).items()}


def test_a_flag_comes_before_the_environment_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("asgictl.toml").write_text(SETTINGS)
    monkeypatch.setenv("ASGICTL_WORKERS", "4")
    monkeypatch.setenv("ASGICTL_CAPACITY", "5")
    monkeypatch.setenv("ASGICTL_LIMIT", "fragments=7 header_fields=9")
    found = shown("m:a", "--capacity", "6", "--uvicorn-option", "ssl_keyfile_password=hunter2")
    assert found["target"] == ("m:a", "flag")
    assert found["capacity"] == (6, "flag")
    assert found["workers"] == (4, "ASGICTL_WORKERS")
    assert found["bind"] == ("127.0.0.1:1", "asgictl.toml")
    assert found["only-channels"] == (["http.*", "a b"], "asgictl.toml")
    assert found["timeout"] == (60.0, "default")
    assert found["redis"] == ("redis://***@h", "asgictl.toml")
    assert found["uvicorn-option"] == (["ssl_keyfile_password=***"], "flag")
    assert found["limit"] == (["fragments=7", "header_fields=9"], "ASGICTL_LIMIT")


def test_what_the_platform_says_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "5000")
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    found = shown()
    assert found["bind"] == ("0.0.0.0:5000", "PORT")
    assert found["workers"] == (3, "WEB_CONCURRENCY")
    Path("asgictl.toml").write_text(SETTINGS)
    assert shown()["bind"] == ("127.0.0.1:1", "asgictl.toml")
    assert shown("--workers", "2..4")["workers"] == ("2..4", "flag")


@pytest.mark.parametrize("variable", ["PORT", "WEB_CONCURRENCY"])
def test_what_the_platform_says_wrongly_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "tcp://10.0.0.1:80")
    result = run("start")
    assert result.exit_code == 2
    assert f"{variable}: " in result.stderr


def test_an_env_file_sets_what_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("OURS", "THEIRS", "ASGICTL_ENV_FILE", "ASGICTL_CAPACITY")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setenv("THEIRS", "stays")
    Path(".env").write_text("export OURS='a b'\nTHEIRS=lost\nASGICTL_CAPACITY=5\nASGICTL_REDIS=redis://h\n")
    found = shown("--env-file", ".env")
    assert (found["capacity"], found["redis"]) == ((5, "ASGICTL_CAPACITY"), ("redis://h", "ASGICTL_REDIS"))
    assert found["env-file"] == (".env", "flag")
    assert (os.environ["OURS"], os.environ["THEIRS"]) == ("a b", "stays")
    monkeypatch.delenv("OURS")
    Path("asgictl.toml").write_text("env-file = '.env'")
    assert shown()["env-file"] == (".env", "asgictl.toml")
    assert os.environ["OURS"] == "a b"


@pytest.mark.parametrize(("data", "said"), [(b"A=\xff", "can't decode"), (b"A=a\0b", "null byte"), (None, "not exist")])
def test_an_env_file_that_cannot_be_read_is_named(data: bytes | None, said: str) -> None:
    if data is not None:
        Path("env").write_bytes(data)
    result = run("start", "--env-file", "env")
    assert result.exit_code == 2
    assert said in result.stderr
    assert "env" in result.stderr


def test_an_app_dir_must_be_a_directory() -> None:
    Path("file").touch()
    for each in ("absent", "file"):
        result = run("start", "--app-dir", each)
        assert (result.exit_code, each in result.stderr) == (2, True)


def test_config_show_shows_what_start_takes_and_no_secret() -> None:
    Path("pyproject.toml").write_text("[tool.asgictl]\nredis = 'redis://:hunter2@h'\n")
    lines = run("config", "show").output.splitlines()
    assert [line.split() for line in lines if line.startswith("redis")] == [
        ["redis", "redis://***@h", "pyproject.toml"]
    ]
    assert {line.split()[0] for line in lines} == {
        str(param.name).replace("_", "-") for param in start.params if param.envvar
    }


def test_start_hands_on_what_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Exception):
        pass

    def started(_self: object, config: InstanceConfig) -> None:
        raise Told(config)

    Path("asgictl.toml").write_text(SETTINGS + "gunicorn-option = ['timeout=3']\n")
    monkeypatch.setattr("asgictl.control.instance.Instance.start", started)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for mode in ("split", "inprocess"):  # what a file has for the other mode is no mistake
        config = run("start", "--mode", mode).exception.args[0]  # type: ignore[union-attr]
        assert (config.name, config.workers, config.interfaces, config.bind.text) == ("shop", 3, 2, "127.0.0.1:1")
        assert config.redis_url == "redis://:hunter2@h"
        assert config.options["ASGICTL_ONLY_CHANNELS"] == "'http.*' 'a b'"
        assert config.options["ASGICTL_CAPACITY"] == "9"


def test_every_command_takes_what_it_has_from_the_file(served: list[WorkerConfig]) -> None:
    Path("asgictl.toml").write_text(SETTINGS)
    assert run("worker", "m:a").exit_code == 0
    assert [(each.name, each.redis_url, each.only) for each in served] == [
        ("shop", "redis://:hunter2@h", ("http.*", "a b"))
    ]
    assert "'shop'" in run("reload").stderr


@pytest.mark.parametrize("text", ["broken", "workerz = 2", "name = 5"])
def test_beside_a_mistake_in_the_file_a_named_instance_can_be_operated(text: str) -> None:
    Path("asgictl.toml").write_text(text)
    refused = run("stop")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Error: asgictl.toml: ")
    assert "; --name does without the file" in refused.stderr
    assert "no instance 'shop' is running" in run("stop", "--name", "shop").stderr
    assert run("status", "--help").exit_code == 0
    assert run("start").exit_code == run("config", "show").exit_code == 2


def test_a_process_of_an_instance_does_not_read_the_file_again(
    served: list[WorkerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("asgictl.toml").write_text("broken")
    assert run("worker", "m:a", "--redis", "redis://h").stderr.startswith("Error: asgictl.toml: ")
    monkeypatch.setenv("ASGICTL_RUN_DIR", "/nowhere")
    assert run("worker", "m:a", "--redis", "redis://h").exit_code == 0
    assert len(served) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers = 99", "'--workers' (env var: 'ASGICTL_WORKERS'): asgictl.toml: 99 is not in the range"),
        ("mode = 'both'", "asgictl.toml: 'both' is not one of"),
        ("name = 'a b'", "asgictl.toml: use 1 to 32 letters"),
        ("uvicorn-option = ['port=1']", "asgictl.toml: port cannot be set"),
        ("limit = ['fragment=1']", "asgictl.toml: there is no fragment"),
    ],
)
def test_a_value_that_an_option_refuses_is_told_with_its_file(text: str, said: str) -> None:
    Path("asgictl.toml").write_text(text)
    for command in (["start"], ["config", "show"]):
        result = run(*command)
        assert result.exit_code == 2
        assert said in result.output
    assert (
        "asgictl.toml"
        not in run("start", "--timeout", "soon", "--name", "x", "--workers", "1", "--mode", "split").output
    )


def test_a_command_does_not_mind_a_value_that_it_does_not_take(served: list[WorkerConfig]) -> None:
    Path("asgictl.toml").write_text("uvicorn-option = ['ssl_certfile=elsewhere.pem']")
    assert run("worker", "m:a", "--redis", "redis://h").exit_code == 0
    assert len(served) == 1
    assert "TLS cannot begin" in run("start").output


def test_a_quotation_that_does_not_close_is_a_mistake_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGICTL_UVICORN_OPTION", "headers='a b")
    result = run("start")
    assert result.exit_code == 2
    assert "No closing quotation" in result.output


def test_ctrl_c_before_a_command_listens_for_it_exits_as_shells_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("asgictl.cli.start._run", interrupted)
    assert run("start").exit_code == 130


def test_help_names_every_exit_status() -> None:
    said = run("--help").output
    codes = {each.exit_code for each in AsgictlError.__subclasses__()} | {0, 1, 2, NEEDS_ATTENTION_STATUS, 130, 143}
    listed = said.partition("Exit status:")[2].partition("Options:")[0]
    assert {int(number) for number in re.findall(r"\b(\d+)  \w", listed)} == codes
