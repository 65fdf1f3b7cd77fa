"""packaging/debian: what it says twice is said alike, and what it names is there.

That the package builds, installs, upgrades and goes away again is proven in tests/machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import stardust

TOP = Path(__file__).parents[1]
DEBIAN = TOP / "packaging" / "debian"
SYSTEMD = TOP / "packaging" / "systemd"
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())

# What `dpkg-buildpackage` wants under a virtual name, or unasked.
REAL_NAMES = {"debhelper-compat": "debhelper", "dh-sequence-python3": "dh-python"}
TAKEN_FOR_GRANTED = {"build-essential"}

SHELL = sorted([*DEBIAN.glob("stardust.p*rm"), DEBIAN / "tests/unit-lint", DEBIAN / "tests/scenarios"])


def stanzas(name: str) -> list[dict[str, str]]:
    """A file of fields, deb822(5): one dictionary a paragraph; lines that go on are joined by blanks."""
    text = re.sub(r"(?m)^#.*\n", "", (DEBIAN / name).read_text())
    joined = re.sub(r"\n[ \t]+", " ", text)
    return [dict(re.findall(r"(?m)^([\w-]+): *(.*)$", part)) for part in joined.split("\n\n")]


def sources(name: str) -> list[str]:
    """The patterns of what a file of debhelper installs, relative to the top of the project.

    dh_install(1) has the place it goes to as its last word, the others have one pattern a line.
    """
    lines = [line.split() for line in (DEBIAN / name).read_text().splitlines()]
    return [word for line in lines for word in (line[:-1] if name.endswith(".install") else line)]


INSTALLED = {
    pattern: name
    for name in ("stardust.docs", "stardust.examples", "stardust.install", "stardust.manpages")
    for pattern in sources(name)
}


def test_the_version() -> None:
    first = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert first == f"stardust ({stardust.__version__}) unstable; urgency=medium"


def test_the_oldest_python() -> None:
    # dh_python3 makes the dependency on python3 of it, and those of ${python3:Depends} of pyproject.toml.
    source, package = stanzas("control")
    assert source["X-Python3-Version"] == PROJECT["project"]["requires-python"].replace(">=", ">= ")
    assert "${python3:Depends}" in package["Depends"].split(", ")


def test_the_backend() -> None:
    [backend] = PROJECT["build-system"]["requires"]
    name, version = backend.split(">=")
    assert f"python3-{name} (>= {version})" in re.split(r",\s*", stanzas("control")[0]["Build-Depends"])


def test_make_deb_installs_what_the_build_needs() -> None:
    wanted = re.findall(r"(?:^|, *)([\w.+-]+)", stanzas("control")[0]["Build-Depends"])
    [line] = re.findall(r"(?m)^DEB_PACKAGES *= (.*)$", (TOP / "Makefile").read_text())
    assert {REAL_NAMES.get(name, name) for name in wanted} | TAKEN_FOR_GRANTED == set(line.split())


def test_every_module_is_packaged() -> None:
    folders = {path.parent.relative_to(TOP) for path in (TOP / "stardust").rglob("*.py")}
    assert PROJECT["tool"]["setuptools"]["packages"] == sorted(".".join(folder.parts) for folder in folders)


@pytest.mark.parametrize("pattern", INSTALLED)
def test_what_is_installed_exists(pattern: str) -> None:
    assert list(TOP.glob(pattern)), f"{INSTALLED[pattern]}: nothing matches {pattern}"


@pytest.mark.parametrize("folder", ["docs/man", "packaging/systemd"])
def test_nothing_is_left_out(folder: str) -> None:
    """Units by a link, which debhelper takes by its name; the rest by a pattern."""
    linked = {path.resolve() for path in DEBIAN.iterdir() if path.is_symlink()}
    matched = {path.resolve() for pattern in INSTALLED for path in TOP.glob(pattern)}
    files = {path for path in (TOP / folder).rglob("*") if path.is_file()}
    assert {path for path in files if not {path, *path.parents} & (linked | matched)} == set()


def test_links_have_the_name_of_what_they_lead_to() -> None:
    links = [path for path in DEBIAN.rglob("*") if path.is_symlink()]
    assert links
    assert {path: os.readlink(path) for path in links} == {path: f"../systemd/{path.name}" for path in links}


@pytest.mark.parametrize("path", SHELL, ids=[path.name for path in SHELL])
def test_scripts_are_shell(path: Path) -> None:
    subprocess.run(["sh", "-n", path], check=True, timeout=60)


@pytest.mark.parametrize("name", ["stardust.prerm", "stardust.postrm"])
def test_debhelper_has_its_place(name: str) -> None:
    assert (DEBIAN / name).read_text().endswith("\n\n#DEBHELPER#\n")


def test_the_programs_can_be_run() -> None:
    tests = [DEBIAN / "tests" / stanza["Tests"] for stanza in stanzas("tests/control")]
    assert {*tests, DEBIAN / "tests/control"} == set((DEBIAN / "tests").iterdir())
    for path in [*tests, DEBIAN / "rules", TOP / "packaging/build-deb.sh"]:
        assert os.access(path, os.X_OK), path


def test_the_license_is_the_same() -> None:
    _, license_ = (DEBIAN / "copyright").read_text().split("License: Expat\n")
    plain = re.sub(r"(?m)^ \.?", "", license_)
    assert (TOP / "LICENSE").read_text().endswith(f"\n\n{plain}")
