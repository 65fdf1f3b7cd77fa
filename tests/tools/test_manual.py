"""tools/manual.py: the committed texts are what the table renders, and they are right."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import manual
import pytest

from stardust.base.errors import Exit
from stardust.base.records import replace
from stardust.config.arguments import parse_arguments
from stardust.config.reading import read
from stardust.logs.events import EVENTS
from stardust.settings import table as settings
from stardust.settings.table import Config

TOP = Path(__file__).resolve().parents[2]
COMMITTED = {
    "example": TOP / "etc/stardust.toml.example",
    "stardust.8": TOP / "docs/man/stardust.8",
    "stardust.toml.5": TOP / "docs/man/stardust.toml.5",
    "stardustctl.1": TOP / "docs/man/stardustctl.1",
    "stardust.catalog": TOP / "packaging/systemd/stardust.catalog",
}
PAGES = [name for name in COMMITTED if name.endswith((".1", ".5", ".8"))]


def test_all_texts_are_committed() -> None:
    assert set(COMMITTED) == set(manual.TEXTS)


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_text_is_the_rendered_one(name: str) -> None:
    assert COMMITTED[name].read_text(encoding="utf-8") == manual.TEXTS[name](), (
        f"run: python tools/manual.py {name} > {COMMITTED[name].relative_to(TOP)}"
    )


@pytest.mark.parametrize("uncommented", [False, True], ids=["as it is", "every key uncommented"])
def test_the_example_file_is_the_defaults(tmp_path: Path, uncommented: bool) -> None:
    text = manual.example()
    if uncommented:
        text = re.sub(r"^#(?=[a-z])", "", text, flags=re.MULTILINE)
        assert len(re.findall(r"^[a-z]", text, flags=re.MULTILINE)) == len(settings.SETTINGS)
    file = tmp_path / "stardust.toml"
    file.write_text(text, encoding="utf-8")
    found = read(parse_arguments(["--config", str(file), "app"]), {}).config
    assert replace(found, app="", source="") == Config()


def test_the_sample_listeners_of_the_example_are_right(tmp_path: Path) -> None:
    file = tmp_path / "stardust.toml"
    sample = re.sub(r"^#     (?=\[|address = |mode = )", "", manual.example(), flags=re.MULTILINE)
    file.write_text(sample, encoding="utf-8")
    found = read(parse_arguments(["--config", str(file), "app"]), {}).config
    assert [(each.name, str(each.address), each.mode) for each in found.listen] == [
        ("http", "127.0.0.1:5000", None),
        ("proxy", "/run/myapp/http.sock", 0o660),
    ]


def test_the_example_fits_a_terminal() -> None:
    assert max(map(len, manual.example().splitlines())) <= 100


@pytest.mark.parametrize("name", PAGES)
def test_man_has_nothing_to_complain_about(name: str) -> None:
    done = subprocess.run(
        ["man", "--warnings", "--encoding=UTF-8", "--local-file", "-Tutf8", "-Z", COMMITTED[name]],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANROFFSEQ": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "stardust" in done.stdout


def test_the_page_of_the_file_has_every_key() -> None:
    page = manual.stardust_toml_5().replace("\\-", "-")
    for setting in settings.SETTINGS:
        assert f"\n.TP\n\\fB{setting.key} = " in page
    for setting in settings.LISTEN_SETTINGS:
        assert f"\n.TP\n\\fB{setting.key}\\fP" in page


def test_the_page_of_the_server_has_every_flag() -> None:
    page = manual.stardust_8().replace("\\-", "-")
    for setting in settings.SETTINGS:
        assert f"\n.TP\n\\fB--{setting.key}=" in page


@pytest.mark.parametrize("name", PAGES)
def test_no_line_is_an_unknown_request(name: str) -> None:
    requests = {line.split()[0] for line in manual.TEXTS[name]().splitlines() if line.startswith((".", "'"))}
    assert requests <= {'.\\"', ".TH", ".nr", ".ad", ".SH", ".PP", ".TP", ".RS", ".RE", ".EX", ".EE"}


def test_every_event_has_an_id_of_its_own() -> None:
    assert len({event.id for event in EVENTS}) == len(EVENTS)
    assert all(re.fullmatch("[0-9a-f]{32}", event.id) for event in EVENTS)


def test_every_event_is_in_the_documentation() -> None:
    told = re.findall(r"^\| ([0-9a-f]{32}) \|", (TOP / "docs/journal.md").read_text(), re.MULTILINE)
    assert told == [event.id for event in EVENTS]


def test_the_catalog_is_understood(tmp_path: Path) -> None:
    """By journalctl, which compiles it and lists what is in it."""
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    shutil.copy(COMMITTED["stardust.catalog"], place)
    for option in ("--update-catalog", "--list-catalog"):
        done = subprocess.run(
            ["journalctl", f"--root={tmp_path}", option],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
    listed = sorted(done.stdout.splitlines())
    assert listed == sorted(f"{event.id} stardust: {event.subject}" for event in EVENTS)


def test_the_command_prints_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert manual.main(["example"]) == Exit.OK
    assert capsys.readouterr().out == manual.example()


@pytest.mark.parametrize("argv", [[], ["nothing"], ["example", "example"]])
def test_the_command_says_what_there_is(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert manual.main(argv) == Exit.USAGE
    assert capsys.readouterr().err.startswith("usage: python tools/manual.py example | stardust.8 |")
