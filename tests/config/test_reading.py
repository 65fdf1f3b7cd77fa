"""stardust.config: command lines and TOML files, right and wrong, to `Config` or to exact messages."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.address import parse
from stardust.base.errors import ConfigError, Exit, UsageError
from stardust.base.records import replace
from stardust.config.reading import (
    Action,
    Loaded,
    application_environment,
    parse_arguments,
    places,
    printed,
    read,
)
from stardust.settings import table as settings
from stardust.settings.kinds import MIB
from stardust.settings.table import Config, Listen


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of a test: relative paths of flags start here."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test puts its configuration file, beside the current directory."""
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc" / "app.toml"


def loaded(*argv: str) -> Loaded:
    return read(parse_arguments(argv), {})


def config(*argv: str) -> Config:
    """What flags and an application give, but for the application."""
    return replace(loaded(*argv, "app").config, app="")


def from_file(file: Path, text: str, *argv: str) -> Loaded:
    file.write_text(text)
    return loaded("--config", str(file), *argv)


def refusal(file: Path, text: str, *argv: str) -> list[str]:
    """The lines of the error, without the file's directory."""
    with pytest.raises(ConfigError) as caught:
        from_file(file, text, *argv)
    assert caught.value.exit == Exit.CONFIG
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()


# ── The command line ──────────────────────────────────────────────────────────────────────────────────


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


def test_relative_paths_of_flags_start_at_the_current_directory(directory: Path) -> None:
    found = config("--socket=x.sock", "-l", "./y.sock", "--access-log", "log/a", "--chdir", "..")
    assert [str(each.address) for each in found.listen] == [f"{directory}/y.sock", f"{directory}/x.sock"]
    assert found.access_log == f"{directory}/log/a"
    assert found.chdir == str(directory.parent)


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
    pytest.param("one two", "unexpected argument two: there is one application", id="two applications"),
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


FLAG_VALUE_ERRORS = [
    pytest.param(
        "--max-workers=-1 app",
        ["command line: --max-workers: must be a whole number from 0 to 1000, not -1"],
        id="bound",
    ),
    pytest.param(
        "--preload=perhaps app",
        ['command line: --preload: must be true or false, not "perhaps"'],
        id="switch",
    ),
    pytest.param(
        "-l a=:80 -l a=:81 app",
        ["command line: --listen: the name a is given twice"],
        id="one name, two listeners",
    ),
    pytest.param(
        "-l :80 -p 80 app",
        ["command line: --listen: :80 is the address of listen.listen-1 already"],
        id="one address, two listeners",
    ),
    pytest.param(
        "--no-ipv6 -l [::1]:80 app",
        ["command line: --listen: [::1]:80 is an IPv6 address, and ipv6 is off"],
        id="IPv6 switched off",
    ),
    pytest.param(
        "--min-reqs-per-child 2000 app",
        ["command line: --min-reqs-per-child: must be at most max-reqs-per-child = 1000, not 2000"],
        id="min over max",
    ),
    pytest.param(
        "--proxy-protocol app",
        [
            "command line: --proxy-protocol: must be off, or trusted-proxies name those who begin with a "
            "PROXY header"
        ],
        id="L14-PROXY headers of nobody",
    ),
    pytest.param(
        "--proxy-hops 2 app",
        ["command line: --proxy-hops: must be 0, or trusted-proxies name the last of the proxies"],
        id="L14-hops of nobody",
    ),
    pytest.param(
        "--trusted-proxies 10.0.0.1/8 app",
        [
            "command line: --trusted-proxies: must be an address or a list of addresses (an IP address, a "
            'network such as "10.0.0.0/8", or "unix:"), not ["10.0.0.1/8"]: "10.0.0.1/8" has bits behind its '
            "prefix; the network is 10.0.0.0/8"
        ],
        id="L14-bits behind the prefix",
    ),
    pytest.param(
        "--forwarded-headers x-real-ip app",
        [
            "command line: --forwarded-headers: must be some of x-forwarded-for, x-forwarded-proto, "
            'x-forwarded-host, x-forwarded-port, x-forwarded-prefix, or "forwarded" alone, not '
            '["x-real-ip"]: "x-real-ip" is none of them'
        ],
        id="L14-a field that is none",
    ),
    pytest.param(
        "--forwarded-headers x-forwarded-for --forwarded-headers forwarded app",
        [
            "command line: --forwarded-headers: must be some of x-forwarded-for, x-forwarded-proto, "
            'x-forwarded-host, x-forwarded-port, x-forwarded-prefix, or "forwarded" alone, not '
            '["x-forwarded-for", "forwarded"]: two that say the same could contradict each other'
        ],
        id="L14-both families",
    ),
    pytest.param(
        "",
        [
            "app: must be given: the WSGI application: module:callable, module:factory() or "
            "path/to/file.py[:name]"
        ],
        id="no application",
    ),
    pytest.param(
        "--user nobody-at-all --group none-at-all app",
        [
            'command line: --user: there is no user "nobody-at-all" on this machine',
            'command line: --group: there is no group "none-at-all" on this machine',
        ],
        id="accounts",
    ),
]


@pytest.mark.parametrize(("argv", "lines"), FLAG_VALUE_ERRORS)
def test_wrong_values_of_flags(argv: str, lines: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(*argv.split())
    assert str(caught.value).splitlines() == lines


RIGHT_TOGETHER = [
    "-l :0 -l :0",
    "--proxy-protocol --trusted-proxies unix: --trusted-proxies 10.0.0.0/8",
    "--forwarded-headers X-Forwarded-For",
    "--max-reqs-per-child 0 --min-reqs-per-child 5",
    "--user 12345 --group 12345",
    "--user root",
]


@pytest.mark.parametrize("argv", RIGHT_TOGETHER)
def test_what_only_looks_like_a_contradiction(argv: str) -> None:
    config(*argv.split())


# ── The file ──────────────────────────────────────────────────────────────────────────────────────────

WHOLE_FILE = """\
app = "myapp:app"       # a comment
timeout = "5min"
umask = 0o022
environment.A = 1

[listen.http]
address = ":80"

[listen."my app.socket"]

[listen.local]
address = "run/x.sock"
mode = 0o660
owner = "root"
group = "0"
"""


def test_a_file_is_read(file: Path) -> None:
    found = from_file(file, WHOLE_FILE).config
    assert found == Config(
        app="myapp:app",
        timeout=300.0,
        umask=0o22,
        environment=(("A", "1"),),
        listen=(
            Listen("http", parse(":80")),
            Listen("my app.socket"),
            Listen("local", parse(f"{file.parent}/run/x.sock"), 0o660, "root", "0"),
        ),
        source=str(file),
    )


def test_every_value_knows_where_it_comes_from(file: Path) -> None:
    found = from_file(file, WHOLE_FILE, "--threads=2", "--environment=B=1")
    origins = {
        "app": f"{file}:1",
        "timeout": f"{file}:2",
        "threads": "flag --threads",
        "backlog": "default",
        "environment.A": f"{file}:4",
        "environment.B": "flag --environment",
        "listen.http.address": f"{file}:7",
        "listen.http.mode": "default",
        "listen.local.mode": f"{file}:13",
    }
    assert {key: str(found.origin(key)) for key in origins} == origins


def test_flags_win_over_the_file(file: Path) -> None:
    text = WHOLE_FILE + '[environment]\nA = "1"\nB = "1"\n'
    text = text.replace("environment.A = 1\n", "")
    found = from_file(file, text, "--timeout=1", "--environment=B=2", "--port=81", "other:app").config
    assert found.app == "other:app"
    assert found.timeout == 1
    assert found.environment == (("A", "1"), ("B", "2"))
    assert found.listen == (Listen("listen-1", parse(":81")),)


def test_flags_replace_the_lists_of_the_file(file: Path) -> None:
    found = from_file(file, 'app = "a"\npythonpath = ["x", "y"]\n', "--pythonpath=z").config
    assert found.pythonpath == ("z",)


def test_relative_paths_of_the_file_start_at_its_directory(file: Path) -> None:
    (file.parent / "one.env").touch()
    (file.parent / "python").symlink_to(sys.executable)
    found = from_file(
        file,
        """
        app = "web/app.py"
        access-log = "log/a"
        env-file = "one.env"
        chdir = "."
        control-socket = "../run/control"
        python = "./python"
        pythonpath = ["lib"]
        """,
    ).config
    assert found.app == "web/app.py"
    assert found.access_log == f"{file.parent}/log/a"
    assert found.env_file == (f"{file.parent}/one.env",)
    assert found.chdir == str(file.parent)
    assert found.control_socket == f"{file.parent.parent}/run/control"
    # Not resolved: the interpreter of a virtual environment is a symbolic link, and must be called by it.
    assert found.python == f"{file.parent}/python"
    assert found.pythonpath == ("lib",)


def test_a_python_without_a_slash_is_looked_up(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(directory))
    assert config("--python=python").python == f"{directory}/python"


FILE_ERRORS = [
    pytest.param(
        'threads = "many"',
        ['app.toml:1: threads: must be a whole number from 1 to 1024, not "many"'],
        id="type",
    ),
    pytest.param(
        "\n\nmax-workers = -1",
        ["app.toml:3: max-workers: must be a whole number from 0 to 1000, not -1"],
        id="bound",
    ),
    pytest.param(
        "max_workers = 1",
        ["app.toml:1: max_workers: unknown setting; did you mean max-workers?"],
        id="nearest",
    ),
    pytest.param(
        "[lissen.x]", ["app.toml:1: lissen: unknown setting; did you mean listen?"], id="nearest table"
    ),
    pytest.param("zzz = 1", ["app.toml:1: zzz: unknown setting"], id="nothing near"),
    pytest.param(
        "\nthreads = 0\n\n[listen.a]\nmode = []",
        [
            "app.toml:2: threads: must be a whole number from 1 to 1024, not 0",
            'app.toml:5: listen.a.mode: must be an octal mode from 0000 to 0777 (text such as "0660", or '
            "0o660), not []",
        ],
        id="all errors at once",
    ),
    pytest.param(
        "[listen.a]\nadress = ':80'",
        ["app.toml:2: listen.a.adress: unknown key; did you mean address?"],
        id="listen key",
    ),
    pytest.param(
        "[listen.a]\nthreads = 3",
        [
            "app.toml:2: listen.a.threads: no key of a listener; settings of the server stand above the "
            "first table"
        ],
        id="a setting below a table's header",
    ),
    pytest.param(
        "listen = ':80'",
        ["app.toml:1: listen: must be tables, [listen.NAME], one for each listener"],
        id="listen",
    ),
    pytest.param(
        "[listen]\nhttp = 80", ["app.toml:2: listen.http: must be a table, [listen.http]"], id="no table"
    ),
    pytest.param(
        "[[listen.http]]", ["app.toml:1: listen.http: must be a table, [listen.http]"], id="array of tables"
    ),
    pytest.param(
        "[listen.'a:b']",
        ['app.toml:1: listen.a:b: a name has 1 to 255 printable ASCII characters, and no ":"'],
        id="systemd.socket(5), FileDescriptorName=",
    ),
    pytest.param(
        "umask = 22",
        [
            'app.toml:1: umask: must be an octal mode from 0000 to 0777 (text such as "0660", or 0o660), '
            "not 22"
        ],
        id="decimal mode",
    ),
    pytest.param(
        "\n[listen.a]\naddress = ':80'\nmode = '0660'",
        ["app.toml:4: listen.a.mode: belongs to a UNIX socket's path, not to :80"],
        id="mode of a TCP listener",
    ),
    pytest.param(
        "[listen.a]\nowner = 'root'",
        [
            "app.toml:2: listen.a.owner: belongs to a UNIX socket's path, not to a socket from systemd (see "
            "SocketMode= of its unit)"
        ],
        id="owner of a socket from systemd",
    ),
    pytest.param(
        "[listen.a]\naddress = '/x'\nowner = 'nobody-at-all'",
        ['app.toml:3: listen.a.owner: there is no user "nobody-at-all" on this machine'],
        id="owner",
    ),
    pytest.param(
        "[listen.a]\naddress = '@x'\n[listen.b]\naddress = '@x'",
        ["app.toml:4: listen.b.address: @x is the address of listen.a already"],
        id="one address, two listeners",
    ),
    pytest.param("a = 1\nb =\n", ["app.toml:2: not TOML: Invalid value"], id="no TOML"),
    pytest.param(
        'a = 1\nb = """\n\n', ["app.toml:3: not TOML: Unterminated string"], id="no TOML at the end"
    ),
    pytest.param(
        "chdir = '/nowhere'",
        ['app.toml:1: chdir: must be a directory, not "/nowhere": there is none'],
        id="chdir",
    ),
    pytest.param(
        "python = '/nowhere'",
        [
            "app.toml:1: python: must be an executable file (a path, or a name to look up on PATH), not "
            '"/nowhere": there is none'
        ],
        id="python",
    ),
    pytest.param(
        "env-file = ['/dev/null', '/nowhere']",
        ["app.toml:1: env-file: /nowhere: cannot be read: No such file or directory"],
        id="env-file",
    ),
    pytest.param(
        f"control-socket = '/{107 * 'x'}'",
        ["app.toml:1: control-socket: it has 108 bytes; a UNIX socket's name has at most 107"],
        id="control-socket, unix(7)",
    ),
    pytest.param(
        '[listen.http]\naddress = ":1"\nproxy-protocol = true\n',
        [
            "app.toml:3: listen.http.proxy-protocol: must be off, or trusted-proxies name those who begin "
            "with a PROXY header"
        ],
        id="L14-PROXY headers of nobody",
    ),
    pytest.param(
        'trusted-proxies = "10.0.0.5/33"\n',
        [
            "app.toml:1: trusted-proxies: must be an address or a list of addresses (an IP address, a "
            'network such as "10.0.0.0/8", or "unix:"), not "10.0.0.5/33": "10.0.0.5/33" must end with a '
            "number of bits from /0 to /32"
        ],
        id="L14-prefix too long",
    ),
]


@pytest.mark.parametrize(("text", "lines"), FILE_ERRORS)
def test_wrong_files(file: Path, text: str, lines: list[str]) -> None:
    assert refusal(file, text, "app") == lines


def test_the_error_carries_its_place(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        from_file(file, "\nthreads = 0\n", "app")
    assert (caught.value.source, caught.value.line, caught.value.key) == (str(file), 2, "threads")


def test_a_missing_file_is_an_error(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"app\.toml: cannot be read: No such file or directory"):
        loaded("--config", str(file), "app")


def test_a_directory_is_no_file(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        loaded("--config", str(file.parent), "app")


def test_a_file_is_text(file: Path) -> None:
    file.write_bytes(b'app = "a"\n# \xff\n')
    with pytest.raises(ConfigError, match=r"app\.toml:2: not text in UTF-8"):
        loaded("--config", str(file))


def test_a_reload_reads_the_same_file_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('app = "one"\naccess-log = "a"')
    arguments = parse_arguments(["--config", os.path.relpath(file), "--control-socket=x"])
    first = read(arguments, {}).config
    monkeypatch.chdir("/")
    file.write_text('app = "two"\naccess-log = "a"')
    assert read(arguments, {}).config == replace(first, app="two")


# ── Credentials ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """A $CREDENTIALS_DIRECTORY with one credential, app.env."""
    found = tmp_path / "credentials"
    found.mkdir()
    (found / "app.env").write_text("SECRET=1\n")
    return found


def with_credentials(directory: str, *argv: str) -> Loaded:
    return read(parse_arguments(argv), {"CREDENTIALS_DIRECTORY": directory})


def test_a_file_that_is_read_may_be_a_credential(file: Path, credentials: Path) -> None:
    (file.parent / "own.env").touch()
    file.write_text('env-file = ["own.env", "credential:app.env"]')
    found = with_credentials(str(credentials), "--config", str(file), "app").config
    assert found.env_file == (f"{file.parent}/own.env", f"{credentials}/app.env")
    assert application_environment(found, {})["SECRET"] == "1"
    flag = with_credentials(str(credentials), "--env-file=credential:app.env", "app")
    assert flag.config.env_file == (f"{credentials}/app.env",)
    assert f'env-file = ["{credentials}/app.env"]  # flag --env-file' in printed(flag)


def test_a_path_may_look_like_a_credential(directory: Path) -> None:
    """A "./" before it says that it is none."""
    (directory / "credential:app.env").touch()
    assert config("--env-file", "./credential:app.env").env_file == (f"{directory}/credential:app.env",)


def test_a_key_may_be_a_credential(file: Path, credentials: Path) -> None:
    """As systemd makes them: its group, and who is named in the list behind that, may read."""
    for name in ("crt", "key", "password"):
        (credentials / name).touch()
        (credentials / name).chmod(0o440)
    file.write_text(
        """
        app = "app"
        ssl = true
        ssl-cert-file = "credential:crt"
        ssl-key-file = "credential:key"
        ssl-key-password-file = "credential:password"
        """
    )
    found = with_credentials(str(credentials), "--config", str(file)).config
    assert found.ssl_cert_file == (f"{credentials}/crt",)
    assert found.ssl_key_file == (f"{credentials}/key",)
    assert found.ssl_key_password_file == f"{credentials}/password"


FILE_IS = 'must be a file or a list of files (a path, or "credential:NAME"), not '
NAME_IS = 'the name of a credential has 1 to 255 printable ASCII characters, and no "/" or ":"'
NO_CREDENTIALS = [
    pytest.param(
        "env-file = 'credential:app.env'",
        "",
        f'env-file: {FILE_IS}"credential:app.env": only the service has credentials; '
        "its unit must be started with LoadCredential=app.env:PATH",
        id="outside of a service",
    ),
    pytest.param(
        "env-file = ['credential:app.evn']",
        "/nowhere",
        f'env-file: {FILE_IS}"credential:app.evn": there is no /nowhere/app.evn; '
        "its unit must be started with LoadCredential=app.evn:PATH",
        id="the unit passes none of this name",
    ),
    *(
        pytest.param(
            f'env-file = "credential:{name}"',
            "/nowhere",
            f'env-file: {FILE_IS}"credential:{name}": {NAME_IS}',
            id=f'no name: "{name}"',
        )
        for name in ("", ".", "..", "../x", "a:b", "é")
    ),
    *(
        pytest.param(
            f"{key} = 'credential:x'",
            "/nowhere",
            f'{key}: must be a path, not "credential:x": only a file that is read can be a credential',
            id=f"not for {key}",
        )
        for key in ("access-log", "chdir", "control-socket")
    ),
]


@pytest.mark.parametrize(("text", "directory", "message"), NO_CREDENTIALS)
def test_wrong_credentials(file: Path, text: str, directory: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        with_credentials(directory, "--config", str(file), "app")
    assert str(caught.value) == f"{file}:1: {message}"


# ── Lines ─────────────────────────────────────────────────────────────────────────────────────────────

TRICKY = '''\
# [comment]
a = """
b = 1
\\""" ""[x]"""""
c = \'\'\'
d = "\'\'\'\'\'
"e.f" . g = [ # ] , [
  1, "]", { h = 1 },
  \'[\',
]
i = { j = 1, "k" = { l = [1, { m = 1 }], n = 2 }, o = {} }

[p . "q.r"]
s = 1979-05-27T07:32:00Z\r
t.u = 1.5e-3
[[v]]
w = 0o17
x = ""
'''


def test_keys_are_found_among_everything_toml_has() -> None:
    found = {".".join(path): place.line for path, place in places(TRICKY).items()}
    assert found == {
        "a": 2,
        "c": 5,
        "e.f": 7,
        "e.f.g": 7,
        "i": 11,
        "i.j": 11,
        "i.k": 11,
        "i.k.l": 11,
        "i.k.n": 11,
        "i.o": 11,
        "p": 13,
        "p.q.r": 13,
        "p.q.r.s": 14,
        "p.q.r.t": 15,
        "p.q.r.t.u": 15,
        "v": 16,
        "v.w": 17,
        "v.x": 18,
    }


def test_numbers_keep_how_they_were_written() -> None:
    assert places("a = 0o17\nb = [1]")["a",].token == "0o17"


NOISE = st.sampled_from(["", "\n", "# [x] = '''\n", " \t\n", "\r\n"])
VALUES = st.sampled_from(
    [
        "1",
        "true",
        "'a#='",
        '"\\"]"',
        "[\n1, [2],\n]",
        '"""\n[x]\n"""',
        "'''\n\n'''''",
        "{ }",
        "{ x = [{ y = 1 }] }",
        "1.5",
    ]
)


@given(
    st.lists(st.tuples(NOISE, st.sampled_from(["{}", "'{}'", '"{}"', "[{}]", "[ '{}' ]", "[[{}]]"]), VALUES))
)
def test_lines_are_right_whatever_stands_between(parts: list[tuple[str, str, str]]) -> None:
    text, expected = "", {}
    table: tuple[str, ...] = ()
    path: tuple[str, ...]
    for number, (noise, form, value) in enumerate(parts):
        text += noise
        name = f"k{number}"
        if form.startswith("["):
            table = (name,)
            path, statement = table, form.format(name)
        else:
            path, statement = (*table, name), f"{form.format(name)} = {value}"
        expected[path] = text.count("\n") + 1
        text += f"{statement} # end\n"
    found = {path: place.line for path, place in places(text).items() if path[-1].startswith("k")}
    assert found == expected


# ── What is made of a configuration ───────────────────────────────────────────────────────────────────


def test_what_is_printed_reads_back(file: Path, tmp_path: Path) -> None:
    first = from_file(
        file, WHOLE_FILE, "--min-reqs-per-child=5", "--max-body=1536KiB", "--environment", 'B="\\'
    )
    again = tmp_path / "again.toml"
    again.write_text(printed(first))
    assert loaded("--config", str(again)).config == replace(first.config, source=str(again))


def test_a_switch_of_a_listener_that_is_unset_reads_back(file: Path, tmp_path: Path) -> None:
    text = """
trusted-proxies = ["10.0.0.0/8", "unix:"]
[listen.a]
address = ":1"
[listen.b]
address = ":2"
proxy-protocol = true
"""
    first = from_file(file, text, "app")
    assert [each.proxy_protocol for each in first.config.listen] == [None, True]
    again = tmp_path / "again.toml"
    again.write_text(printed(first))
    assert loaded("--config", str(again)).config == replace(first.config, source=str(again))


def test_what_is_printed_says_where_it_comes_from(file: Path) -> None:
    lines = printed(from_file(file, WHOLE_FILE, "--threads=2")).splitlines()
    for line in (
        f'app = "myapp:app"  # {file}:1',
        "threads = 2  # flag --threads",
        "max-workers = 10  # default",
        f'umask = "0022"  # {file}:3',
        f'A = "1"  # {file}:4',
        '[listen."my app.socket"]',
        f'address = ":80"  # {file}:7',
    ):
        assert line in lines


def test_printing_needs_no_application() -> None:
    assert 'app = ""  # default' in printed(loaded("--print-config"))


def test_the_environment_of_the_application(tmp_path: Path) -> None:
    one, two = tmp_path / "one.env", tmp_path / "two.env"
    one.write_text("# comment\nexport A=one\nB='two words'\nBASE=${BASE}+${A}\nNOTHING\n\n")
    two.write_text('B=${B}!\nC="${MISSING:-c}\\n"\nD=file\n')
    found = Config(env_file=(str(one), str(two)), environment=(("D", "table"), ("E", "${A}")))
    base = {"BASE": "base", "A": "zero"}
    assert application_environment(found, base) == {
        "A": "one",
        "B": "two words!",
        "BASE": "base+one",
        "C": "c\n",
        "D": "table",
        "E": "${A}",
    }
    assert base == {"BASE": "base", "A": "zero"}


@pytest.mark.parametrize("text", ["A=1\n='x'\n", "A=1\nB='x\n", "A=1\nB=\0\n"])
def test_a_broken_env_file_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.env"
    path.write_text(text)
    reason = f"{path}:2: must be NAME=VALUE, as python-dotenv reads it"
    with pytest.raises(ConfigError) as caught:
        application_environment(Config(env_file=(str(path),)), {})
    assert str(caught.value) == reason
    with pytest.raises(ConfigError) as caught:
        config("--env-file", str(path))
    assert str(caught.value) == f"command line: --env-file: {reason}"


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pems(file: Path) -> Path:
    """The configuration file, with files beside it: certificates a.crt and b.crt with keys, authorities."""
    for name in ("a.crt", "a.key", "b.crt", "b.key", "ca.crt"):
        (file.parent / name).touch(mode=0o600)
    return file


A = "ssl-cert-file = 'a.crt'\nssl-key-file = 'a.key'\n"
BOTH = "ssl-cert-file = ['a.crt', 'b.crt']\nssl-key-file = ['a.key', 'b.key']\n"

TLS_WRONG = [
    pytest.param(
        "ssl = true",
        ["app.toml:2: ssl: needs ssl-cert-file: there is no TLS without a certificate"],
        id="no certificate",
    ),
    pytest.param(
        "[listen.http]\naddress = ':80'\n[listen.https]\naddress = ':443'\nssl = true",
        ["app.toml:6: listen.https.ssl: needs ssl-cert-file: there is no TLS without a certificate"],
        id="no certificate for one listener",
    ),
    pytest.param(
        "ssl = true\nssl-cert-file = ['a.crt', 'b.crt']\nssl-key-file = 'a.key'",
        ["app.toml:4: ssl-key-file: must be 2 files, one for each ssl-cert-file in its order, not 1"],
        id="a key too few",
    ),
    pytest.param(
        A,
        [
            "app.toml:2: ssl-cert-file: has no effect: ssl is off. It must be true, here or in the [listen] "
            "tables that are to speak TLS"
        ],
        id="nobody speaks TLS",
    ),
    pytest.param(
        f"{A}ssl = true\nssl-verify-mode = 'optional'",
        [
            "app.toml:5: ssl-verify-mode: needs ssl-client-ca-file or ssl-ca-file: the authorities that "
            "certificates must come from"
        ],
        id="no authorities",
    ),
    pytest.param(
        f"{A}ssl = true\nssl-client-ca-file = 'ca.crt'",
        [
            'app.toml:5: ssl-client-ca-file: has no effect with ssl-verify-mode = "none"; must be "optional" '
            'or "required" there'
        ],
        id="authorities for nothing",
    ),
    pytest.param(
        f"{A}ssl = true\nssl-verify-mode = 2\nssl-min-version = '1.1'",
        [
            "app.toml:5: ssl-verify-mode: must be one of none, optional, required (or their numbers 0, 1, "
            "3), not 2",
            'app.toml:6: ssl-min-version: must be one of 1.2, 1.3, not "1.1"',
        ],
        id="values that are none",
    ),
    pytest.param(
        "ssl = true\nssl-cert-file = 'c.crt'\nssl-key-file = '.'\nssl-ca-file = 'c.ca'",
        [
            "app.toml:3: ssl-cert-file: c.crt: cannot be read: No such file or directory",
            "app.toml:4: ssl-key-file: .: cannot be read: Is a directory",
            "app.toml:5: ssl-ca-file: c.ca: cannot be read: No such file or directory",
        ],
        id="files that are none",
    ),
]


@pytest.mark.parametrize(("text", "lines"), TLS_WRONG)
def test_settings_of_tls_that_do_not_fit(pems: Path, text: str, lines: list[str]) -> None:
    found = [
        line.replace(f"{pems.parent}: cannot", ".: cannot") for line in refusal(pems, f"app = 'a'\n{text}")
    ]
    assert found == lines


TLS_RIGHT = [
    pytest.param(f"{A}ssl = true", {"": True}, id="everywhere"),
    pytest.param(f"{A}ssl = false", {"": False}, id="switched off on purpose"),
    pytest.param(
        f"{A}[listen.a]\naddress = ':80'\n[listen.b]\naddress = ':443'\nssl = true",
        {"a": False, "b": True},
        id="one of two",
    ),
    pytest.param(
        f"{A}ssl = true\n[listen.a]\naddress = ':80'\nssl = false\n[listen.b]\naddress = '/run/b'\nssl = ''",
        {"a": False, "b": True},
        id="all but one, and a UNIX socket",
    ),
    pytest.param(f"{A}[listen.a]\naddress = ':80'\nssl = false", {"a": False}, id="off for the only one"),
    pytest.param(
        f"{BOTH}ssl = true\nssl-verify-mode = 3\nssl-ca-file = 'ca.crt'", {"": True}, id="all of it"
    ),
]


@pytest.mark.parametrize(("text", "speaks"), TLS_RIGHT)
def test_who_speaks_tls(pems: Path, text: str, speaks: dict[str, bool]) -> None:
    found = from_file(pems, f"app = 'a'\n{text}").config
    assert {name: found.speaks_tls(name) for name in speaks} == speaks
    assert found.speaks_tls("of systemd, without a table") == found.ssl


@pytest.mark.parametrize(
    ("value", "mode"), [("0", "none"), ("1", "optional"), ("3", "required"), ("required", "required")]
)
def test_the_numbers_of_the_original_are_understood(pems: Path, value: str, mode: str) -> None:
    argv = ("--ssl-verify-mode", value, "--ssl-ca-file", str(pems.parent / "ca.crt"))
    assert config(*argv).ssl_verify_mode == mode


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
@pytest.mark.parametrize("keyed", [True, False], ids=["key", "key beside the certificate"])
def test_a_key_that_its_group_may_read_is_fine(pems: Path, mode: int, keyed: bool) -> None:
    (pems.parent / "a.crt").chmod(0o644 if keyed else mode)
    (pems.parent / "a.key").chmod(mode)
    from_file(pems, f"app = 'a'\nssl = true\n{A if keyed else A.splitlines()[0]}")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o660, 0o602, 0o601])
def test_a_key_that_others_may_use_is_refused(pems: Path, mode: int) -> None:
    (pems.parent / "a.key").chmod(mode)
    rule = f"others may use this secret: its mode must be 0600, or 0640 for a group, not {mode:04o}"
    assert refusal(pems, f"app = 'a'\nssl = true\n{A}") == [f"app.toml:4: ssl-key-file: a.key: {rule}"]
    (pems.parent / "a.crt").chmod(mode)
    whole = f"app = 'a'\nssl = true\n{A.splitlines()[0]}"
    assert refusal(pems, whole) == [f"app.toml:3: ssl-cert-file: a.crt: {rule}"]
    password = "app = 'a'\nssl = true\nssl-cert-file = 'b.crt'\nssl-key-password-file = 'a.key'"
    assert refusal(pems, password) == [f"app.toml:4: ssl-key-password-file: a.key: {rule}"]
