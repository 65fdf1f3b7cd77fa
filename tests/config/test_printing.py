"""What is printed says where it comes from, and reads back."""

from __future__ import annotations

from pathlib import Path

from stardust.base.records import replace
from stardust.config.printing import printed
from tests.config.given import WHOLE_FILE, from_file, loaded


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
