"""What is wrong with a configuration as a whole: settings that contradict each other, what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from stardust.base.errors import ConfigError
from tests.config.given import config, from_file, loaded, refusal

FLAG_VALUE_ERRORS = [
    pytest.param(
        "-l :80 -p 80 app",
        ["command line: --listen: :80 is already the address of listen.listen-1"],
        id="one address, two listeners",
    ),
    pytest.param(
        "--no-ipv6 -l [::1]:80 app",
        ["command line: --listen: [::1]:80 is an IPv6 address, but ipv6 is off"],
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
            "command line: --proxy-protocol: needs trusted-proxies: name the proxies there that send a "
            "PROXY header"
        ],
        id="L14-PROXY headers of nobody",
    ),
    pytest.param(
        "--proxy-hops 2 app",
        ["command line: --proxy-hops: needs trusted-proxies: name the last of the proxies there"],
        id="L14-hops of nobody",
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


FILE_ERRORS = [
    pytest.param(
        "\n[listen.a]\naddress = ':80'\nmode = '0660'",
        ["app.toml:4: listen.a.mode: applies to the path of a UNIX socket, not to :80"],
        id="mode of a TCP listener",
    ),
    pytest.param(
        "[listen.a]\nowner = 'root'",
        [
            "app.toml:2: listen.a.owner: applies to the path of a UNIX socket, not to a socket from systemd "
            "(see SocketMode= of its unit)"
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
        ["app.toml:4: listen.b.address: @x is already the address of listen.a"],
        id="one address, two listeners",
    ),
    pytest.param(
        "chdir = '/nowhere'",
        ['app.toml:1: chdir: must be a directory, not "/nowhere": there is no such directory'],
        id="chdir",
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
            "app.toml:3: listen.http.proxy-protocol: needs trusted-proxies: name the proxies there that "
            "send a PROXY header"
        ],
        id="L14-PROXY headers of nobody",
    ),
]


@pytest.mark.parametrize(("text", "lines"), FILE_ERRORS)
def test_wrong_files(file: Path, text: str, lines: list[str]) -> None:
    assert refusal(file, text, "app") == lines


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
        ["app.toml:4: ssl-key-file: must be 2 files, one for each ssl-cert-file in the same order, not 1"],
        id="a key too few",
    ),
    pytest.param(
        A,
        [
            "app.toml:2: ssl-cert-file: has no effect while ssl is off; set ssl = true, here or in a "
            "[listen.NAME] table"
        ],
        id="nobody speaks TLS",
    ),
    pytest.param(
        f"{A}ssl = true\nssl-verify-mode = 'optional'",
        [
            "app.toml:5: ssl-verify-mode: needs ssl-client-ca-file or ssl-ca-file: the authorities that "
            "issue client certificates"
        ],
        id="no authorities",
    ),
    pytest.param(
        f"{A}ssl = true\nssl-client-ca-file = 'ca.crt'",
        [
            'app.toml:5: ssl-client-ca-file: has no effect while ssl-verify-mode is "none"; set that to '
            '"optional" or "required"'
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
    rule = f"others may use this secret: change its mode from {mode:04o} to 0600, or to 0640 for a group"
    assert refusal(pems, f"app = 'a'\nssl = true\n{A}") == [f"app.toml:4: ssl-key-file: a.key: {rule}"]
    (pems.parent / "a.crt").chmod(mode)
    whole = f"app = 'a'\nssl = true\n{A.splitlines()[0]}"
    assert refusal(pems, whole) == [f"app.toml:3: ssl-cert-file: a.crt: {rule}"]
    password = "app = 'a'\nssl = true\nssl-cert-file = 'b.crt'\nssl-key-password-file = 'a.key'"
    assert refusal(pems, password) == [f"app.toml:4: ssl-key-password-file: a.key: {rule}"]
