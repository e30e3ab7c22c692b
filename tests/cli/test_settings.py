"""Settings from asgictl.toml and pyproject.toml."""

import re
from pathlib import Path

import click
import pytest

from asgictl.cli.settings import SettingsError, Span, defaults, read_settings
from asgictl.cli.start import start


def test_without_a_file_nothing_is_set(tmp_path: Path) -> None:
    assert read_settings(tmp_path, start) == ("", {})


def test_the_first_file_that_is_there_counts_alone(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.asgictl]\nworkers = 2\ntarget = 'm:a'\n")
    assert read_settings(tmp_path, start) == ("pyproject.toml", {"workers": 2, "target": "m:a"})
    (tmp_path / "asgictl.toml").write_text("workers = 3\n")
    assert read_settings(tmp_path, start) == ("asgictl.toml", {"workers": 3})


def test_a_pyproject_that_does_not_name_asgictl_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("tool = 3\n")
    assert read_settings(tmp_path, start) == ("", {})


def test_a_value_has_the_type_of_its_option(tmp_path: Path) -> None:
    (tmp_path / "asgictl.toml").write_text("only-channels = ['http.*', 'a b']\ntimeout = 3\nredis = 'redis://h'\n")
    _, settings = read_settings(tmp_path, start)
    assert settings == {"only_channels": ["http.*", "a b"], "timeout": 3, "redis": "redis://h"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workerz = 1", "there is no workerz; did you mean workers?"),
        ("detach = true", "there is no detach"),
        ("interfaces = '4'", "interfaces must be int"),
        ("workers = 1.5", "workers must be int"),
        ("workers = true", "workers must be int"),
        ("workers = [1]", "workers must be int"),
        ("timeout = '3'", "timeout must be float"),
        ("redis = 1", "redis must be str"),
        ("only-channels = 'http.*'", "only-channels must be a list of str"),
        ("only-channels = [1]", "only-channels must be a list of str"),
        ("workers =", "Invalid value"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_key(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "asgictl.toml").write_text(text)
    with pytest.raises(SettingsError) as refused:
        read_settings(tmp_path, start)[1]["target"]()
    assert refused.value.message.startswith(f"asgictl.toml: {said}")
    assert refused.value.exit_code == 2


def test_workers_are_a_number_or_a_span(tmp_path: Path) -> None:
    for text, value in (("4", 4), ("'2..8'", "2..8")):
        (tmp_path / "asgictl.toml").write_text(f"workers = {text}\n")
        assert read_settings(tmp_path, start)[1] == {"workers": value}


@pytest.mark.parametrize(("given", "value"), [(4, 4), ("4", 4), ("2..8", "2..8"), ("3..3", 3)])
def test_a_span_is_a_number_where_both_ends_are_one(given: object, value: object) -> None:
    assert Span(click.IntRange(1, 64)).convert(given, None, None) == value


@pytest.mark.parametrize("given", ["8..2", "0..3", "1..65", "2..", "..3", "x", "2...3", ""])
def test_a_span_has_two_ends_within_limits(given: str) -> None:
    with pytest.raises(click.BadParameter):
        Span(click.IntRange(1, 64)).convert(given, None, None)


def test_a_table_that_is_none_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool]\nasgictl = 3\n")
    with pytest.raises(SettingsError, match=r"tool\.asgictl must be a table"):
        read_settings(tmp_path, start)[1]["target"]()


def test_a_file_that_is_not_text_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "asgictl.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"asgictl\.toml: "):
        read_settings(tmp_path, start)[1]["target"]()


@pytest.mark.parametrize("text", ["nmae = 'shop'", "name = 5", "workers =", "workerz = 1"])
def test_beside_a_mistake_nothing_is_a_default_but_what_is_right_counts(text: str, tmp_path: Path) -> None:
    (tmp_path / "asgictl.toml").write_text(text)
    with pytest.raises(SettingsError, match="--name does without the file"):
        read_settings(tmp_path, start)[1]["name"]()
    if text != "workers =":
        (tmp_path / "asgictl.toml").write_text(f"redis = 'redis://h'\n{text}")
        assert read_settings(tmp_path, start)[1]["redis"] == "redis://h"


def test_the_settings_in_the_docs_are_settings(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text()
    ((text,),) = [re.findall(r"```toml\n(.*?)```", docs, re.DOTALL)]
    (tmp_path / "asgictl.toml").write_text(text)
    assert read_settings(tmp_path, start)[1]["workers"] == 4


def test_a_command_gets_those_of_its_options_that_the_environment_can_give() -> None:
    @click.group()
    def group() -> None: ...

    @group.group()
    def inner() -> None: ...

    @inner.command("reload")
    @click.option("--name", envvar="N")
    @click.option("--interfaces", is_flag=True)  # of the same name as another's, and no setting
    def _reload() -> None: ...

    assert defaults(group, {"name": "shop", "interfaces": 2}) == {"inner": {"reload": {"name": "shop"}}}
