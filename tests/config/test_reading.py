"""Command lines and TOML files, right and wrong, to `Config` or to exact messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stardust.base.address import parse
from stardust.base.errors import ConfigError
from stardust.base.records import replace
from stardust.config.arguments import parse_arguments
from stardust.config.reading import read
from stardust.settings.table import Config, Listen
from tests.config.given import WHOLE_FILE, from_file, loaded, refusal

FLAG_VALUE_ERRORS = [
    pytest.param(
        "--max-workers=-1 app",
        ["command line: --max-workers: must be a whole number from 0 to 1000, not -1"],
        id="bound",
    ),
    pytest.param(
        "--preload=perhaps app",
        ['command line: --preload: must be true, false or "auto", not "perhaps"'],
        id="switch",
    ),
    pytest.param(
        "-l a=:80 -l a=:81 app",
        ["command line: --listen: the name a is given twice"],
        id="one name, two listeners",
    ),
    pytest.param(
        "--trusted-proxies 10.0.0.1/8 app",
        [
            "command line: --trusted-proxies: must be an address or a list of addresses (an IP address, a "
            'network such as "10.0.0.0/8", or "unix:"), not ["10.0.0.1/8"]: "10.0.0.1/8" has bits after its '
            "prefix; the network is 10.0.0.0/8"
        ],
        id="L14-bits behind the prefix",
    ),
    pytest.param(
        "--forwarded-headers x-real-ip app",
        [
            "command line: --forwarded-headers: must be some of x-forwarded-for, x-forwarded-proto, "
            'x-forwarded-host, x-forwarded-port, x-forwarded-prefix, or "forwarded" alone, not '
            '["x-real-ip"]: "x-real-ip" is not one of them'
        ],
        id="L14-a field that is none",
    ),
    pytest.param(
        "--forwarded-headers x-forwarded-for --forwarded-headers forwarded app",
        [
            "command line: --forwarded-headers: must be some of x-forwarded-for, x-forwarded-proto, "
            'x-forwarded-host, x-forwarded-port, x-forwarded-prefix, or "forwarded" alone, not '
            '["x-forwarded-for", "forwarded"]: remove "forwarded" or the others, which could contradict it'
        ],
        id="L14-both families",
    ),
]


@pytest.mark.parametrize(("argv", "lines"), FLAG_VALUE_ERRORS)
def test_wrong_values_of_flags(argv: str, lines: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(*argv.split())
    assert str(caught.value).splitlines() == lines


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
            "app.toml:2: listen.a.threads: not a key of a listener; move settings of the server above the "
            "first table"
        ],
        id="a setting below a table's header",
    ),
    pytest.param(
        "listen = ':80'",
        ["app.toml:1: listen: must be a table [listen.NAME] for each listener"],
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
        ['app.toml:1: listen.a:b: the name must have 1 to 255 printable ASCII characters, none of them ":"'],
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


def test_a_reload_reads_the_same_file_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('app = "one"\naccess-log = "a"')
    arguments = parse_arguments(["--config", os.path.relpath(file), "--control-socket=x"])
    first = read(arguments, {}).config
    monkeypatch.chdir("/")
    file.write_text('app = "two"\naccess-log = "a"')
    assert read(arguments, {}).config == replace(first, app="two")
