"""The command line: what its flags set, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from stardust.base.errors import Exit, UsageError
from stardust.config.arguments import Action, parse_arguments
from stardust.settings import table as settings
from stardust.settings.kinds import MIB
from stardust.settings.table import Config
from tests.config.given import config, loaded


def test_nothing_but_an_application_gives_the_defaults() -> None:
    assert config() == Config()


FLAGS = [
    pytest.param("--max-workers=4", {"max_workers": 4}, id="value after ="),
    pytest.param("--max-workers 4", {"max_workers": 4}, id="value as next word"),
    pytest.param("--workers=4", {"max_workers": 4}, id="alias"),
    pytest.param("--max-workers 4 --workers 5", {"max_workers": 5}, id="the last one counts"),
    pytest.param("--timeout=5min", {"timeout": 300.0}, id="duration"),
    pytest.param("--max-body 2MiB", {"max_body": 2 * MIB}, id="size"),
    pytest.param("--umask 027", {"umask": 0o27}, id="mode is octal"),
    pytest.param("--preload", {"preload": True}, id="switch"),
    pytest.param("--preload=0", {"preload": False}, id="switch with a value"),
    pytest.param("--preload 0", {"preload": False}, id="switch with a value as next word"),
    pytest.param("--no-preload", {"preload": False}, id="switch, negated"),
    pytest.param("--preload=auto", {"preload": "auto"}, id="switch with a word"),
    pytest.param("--no-preload --preload", {"preload": True}, id="the last switch counts"),
    pytest.param("--access-log -", {"access_log": "-"}, id="standard output"),
    pytest.param(
        "--environment A=1 --environment=B=x=y --environment A=2",
        {"environment": (("A", "2"), ("B", "x=y"))},
        id="variables",
    ),
    pytest.param("--pythonpath lib --pythonpath ../x", {"pythonpath": ("lib", "../x")}, id="list"),
]


@pytest.mark.parametrize(("argv", "values"), FLAGS)
def test_flags_set_what_they_name(argv: str, values: dict[str, object]) -> None:
    expected = Config(**values)  # type: ignore[arg-type]
    assert config(*argv.split()) == expected


def test_every_setting_has_its_flag() -> None:
    for setting in settings.SETTINGS:
        text = {"NAME=VALUE": "A=b"}.get(setting.kind.shape, "1")
        assert setting.name in parse_arguments([f"--{setting.key}={text}"]).values


@pytest.mark.parametrize("argv", ["--ipv6 app", "app --ipv6", "--app app", "--port 1 app --ipv6"])
def test_the_application_is_the_word_that_is_no_flag(argv: str) -> None:
    assert loaded(*argv.split()).config.app == "app"


ADDRESSES = [
    pytest.param("--host 127.0.0.2", ["127.0.0.2:5000"], id="host alone"),
    pytest.param("--port 80", [":80"], id="port alone"),
    pytest.param("-o ::1 -p 80", ["[::1]:80"], id="host and port"),
    pytest.param("-o [::1] -p 80", ["[::1]:80"], id="host in brackets"),
    pytest.param("-l :80 --listen [::1]:81 -l @x -l /x", [":80", "[::1]:81", "@x", "/x"], id="listen"),
    pytest.param("-S /run/x --socket @x", ["/run/x", "@x"], id="socket"),
    pytest.param(r"-S \0x", ["@x"], id="socket with the original's NUL"),
    pytest.param("--port 80 -S /x -l :81", [":80", ":81", "/x"], id="all"),
    pytest.param("--ipv6", [], id="ipv6 is no address"),
]


@pytest.mark.parametrize(("argv", "expected"), ADDRESSES)
def test_address_flags(argv: str, expected: list[str]) -> None:
    assert [str(listen.address) for listen in config(*argv.split()).listen] == expected


def test_address_flags_have_names() -> None:
    listen = config("-l", "http=:80", "-l", "[::1]:81", "-l", "@a=b").listen
    assert [(each.name, str(each.address)) for each in listen] == [
        ("http", ":80"),
        ("listen-2", "[::1]:81"),
        ("listen-3", "@a=b"),
    ]


def test_load_belongs_to_the_check() -> None:
    assert parse_arguments(["--check-config", "--load", "shop"]).load
    assert not parse_arguments(["--check-config", "shop"]).load
    with pytest.raises(UsageError, match="--load needs --check-config"):
        parse_arguments(["--load", "shop"])


@pytest.mark.parametrize(
    ("argv", "action"), [("", Action.RUN), ("--check-config", Action.CHECK), ("--print-config", Action.PRINT)]
)
def test_actions(argv: str, action: Action) -> None:
    assert parse_arguments(argv.split()).action is action


USAGE_ERRORS = [
    pytest.param("--max-workrs 3", "unknown flag --max-workrs; did you mean --max-workers?", id="nearest"),
    pytest.param(
        "--max-work=3", "unknown flag --max-work; did you mean --max-workers?", id="no abbreviations"
    ),
    pytest.param("--daemonize", "unknown flag --daemonize", id="nothing near"),
    pytest.param("--lissen :80", "unknown flag --lissen; did you mean --listen?", id="nearest address flag"),
    pytest.param("-x", "unknown flag -x", id="short"),
    pytest.param("one two", "unexpected argument two: give one application only", id="two applications"),
    pytest.param("--app one two", "the application is given twice, by --app and as two", id="twice"),
    pytest.param("--timeout", "argument --timeout: expected one argument", id="no value"),
    pytest.param("--environment A", "argument --environment: must be NAME=VALUE, not A", id="no pair"),
]


@pytest.mark.parametrize(("argv", "message"), USAGE_ERRORS)
def test_usage_errors(argv: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arguments(argv.split())
    assert str(caught.value) == message
    assert caught.value.exit == Exit.USAGE


@pytest.mark.parametrize(("flag", "text"), [("--help", "--max-workers"), ("--version", "stardust ")])
def test_help_and_version_end_the_process(flag: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments([flag])
    assert caught.value.code == 0
    assert text in capsys.readouterr().out
