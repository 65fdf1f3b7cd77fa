"""The Debian trees that machines are booted from, and the package under test: made once, kept elsewhere.

    python -m tests.machine.trees      make what is missing (root; systemd-nspawn and debootstrap)

For each release, in $STARDUST_MACHINES (default /var/cache/stardust-machines):

    base-RELEASE-KEY     a small Debian with systemd, by debootstrap
    tools-RELEASE-KEY    a layer over it: what building and checking the package takes
    debs-RELEASE-KEY     the package as this source makes it, and the same as a later version
    ready-RELEASE-KEY    a layer over base: that package installed by apt, without a network

A layer is the upper directory of an overlay. KEY is a digest of all that the thing is made of, so nothing is
ever brought up to date: what has another key is made anew, and its predecessor removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[2]
CACHE = Path(os.environ.get("STARDUST_MACHINES", "/var/cache/stardust-machines"))
RELEASES = ("bookworm", "trixie")  # systemd 252 and 257

# What a small server has: systemd with sessions for users, and what the package under test depends on, for
# machines have no network to get it from.
BASE = (
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd"),
    *("ca-certificates", "curl", "iproute2", "procps"),
    *("python3", "python3-venv", "python3-systemd", "python3-dotenv"),
)
TOOLS = (
    *("build-essential", "debhelper", "dh-python", "pybuild-plugin-pyproject", "python3-all"),
    *("python3-setuptools", "lintian", "man-db"),
    *("python3-pytest", "python3-pytest-timeout", "python3-hypothesis"),
)

LATER = """stardust ({version}+later) unstable; urgency=medium

  * The same again, to upgrade to.

 -- The stardust maintainers <maintainers@stardust.example>  Sun, 22 Nov 2026 12:00:00 +0000

"""


class Trees(NamedTuple):
    """What there is for one release; `ready` and `tools` are layers over `base`."""

    release: str
    base: Path
    tools: Path
    debs: Path
    ready: Path

    @property
    def package(self) -> Path:
        return self._deb(later=False)

    @property
    def later_package(self) -> Path:
        return self._deb(later=True)

    def _deb(self, *, later: bool) -> Path:
        (found,) = [path for path in self.debs.glob("*.deb") if ("+later" in path.name) is later]
        return found


def missing_tools() -> str:
    """Why machines cannot be booted here; "" if they can."""
    if os.geteuid() != 0:
        return "booting containers needs root"
    absent = [name for name in ("debootstrap", "systemd-nspawn", "unshare") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def planned(release: str) -> Trees:
    """Where the trees of `release` belong, made or not."""
    base = digest(release, *BASE)
    tools = digest(base, *TOOLS)
    debs = digest(tools, LATER, *(f"{name} {content(SOURCE / name)}" for name in packaged()))
    ready = digest(base, debs)
    return Trees(
        release,
        CACHE / f"base-{release}-{base}",
        CACHE / f"tools-{release}-{tools}",
        CACHE / f"debs-{release}-{debs}",
        CACHE / f"ready-{release}-{ready}",
    )


def make(release: str) -> Trees:
    """Make what is missing of the trees of `release`. CalledProcessError if a step fails."""
    trees = planned(release)
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / f"lock-{release}"):
        made(trees.base, lambda new: debootstrap(release, new))
        made(trees.tools, lambda new: install_tools(trees, new))
        made(trees.debs, lambda new: build(trees, new))
        made(trees.ready, lambda new: install_package(trees, new))
    return trees


def made(path: Path, build_in: Callable[[Path], None]) -> None:
    """Have `build_in` fill a new directory, which becomes `path` when it is complete."""
    if path.exists():
        return
    print(f"making {path.name}", flush=True)
    kind = path.name.rpartition("-")[0]
    for old in CACHE.glob(f"{kind}-*"):
        shutil.rmtree(old)
    new = path.with_name(path.name + ".new")
    new.mkdir()
    build_in(new)
    new.rename(path)


def debootstrap(release: str, new: Path) -> None:
    call("debootstrap", "--variant=minbase", f"--include={','.join(BASE)}", release, str(new))
    # Machines are cut off from the network; what is not to be had there must fail at once.
    (new / "etc/apt/sources.list.d").mkdir(exist_ok=True)


def install_tools(trees: Trees, new: Path) -> None:
    script = f"""
        apt-get update --quiet
        DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends {" ".join(TOOLS)}
    """
    with overlay([trees.base], new) as root:
        # The way to the archive is this machine's: its proxies, its trust in clocks.
        acquire = call("apt-config", "dump", "Acquire")
        (root / "etc/apt/apt.conf.d/99this-machine").write_text(acquire)
        inside(root, script, network=True)


def build(trees: Trees, new: Path) -> None:
    """Build the package twice: as it is, and with a later version."""
    upper = new / "layer"
    upper.mkdir()
    with overlay([trees.tools, trees.base], upper) as root:
        for later in (False, True):
            place = root / "build"
            copy(packaged(), place)
            if later:
                changelog = place / "packaging/debian/changelog"
                version = changelog.read_text().partition("(")[2].partition(")")[0]
                changelog.write_text(LATER.format(version=version) + changelog.read_text())
            inside(root, "cd /build && packaging/build-deb.sh /out")
            shutil.rmtree(place)
        for path in (root / "out").iterdir():
            shutil.copy2(path, new)
    shutil.rmtree(upper)


def install_package(trees: Trees, new: Path) -> None:
    with overlay([trees.base], new) as root:
        shutil.copy2(trees.package, root / "root")
        inside(root, f"apt-get install --quiet --yes --no-install-recommends /root/{trees.package.name}")


# --- a tree as a root -----------------------------------------------------------------------------------


@contextlib.contextmanager
def overlay(lower: Sequence[Path], upper: Path) -> Iterator[Path]:
    """The tree of `lower`, topmost first, with what changes going to `upper`."""
    place = upper.with_name(upper.name + ".mount")
    work, root = place / "work", place / "root"
    work.mkdir(parents=True)
    root.mkdir()
    options = f"lowerdir={':'.join(map(str, lower))},upperdir={upper},workdir={work}"
    call("mount", "-t", "overlay", "overlay", "-o", options, str(root))
    try:
        yield root
    finally:
        call("umount", str(root))
        shutil.rmtree(place)


def inside(root: Path, script: str, *, network: bool = False) -> str:
    """Run a shell script as root in a tree that is not booted; its output."""
    way = ["--resolv-conf=replace-host"] if network else ["--private-network", "--resolv-conf=off"]
    nspawn = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=pipe", *way]
    return call(*nspawn, f"--directory={root}", "sh", "-exc", script)


def call(*command: str) -> str:
    """Run a command to its end; what it printed. CalledProcessError if it fails, after showing that."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        done.check_returncode()
    return done.stdout


# --- the project ----------------------------------------------------------------------------------------


def project() -> list[str]:
    """The files of the project, committed or not."""
    # Whoever runs the tests trusts the project, whoever owns its files.
    git = ["git", "-c", "safe.directory=*", "-C", str(SOURCE)]
    listed = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    return sorted(name for name in call(*listed).split("\0") if name and os.path.lexists(SOURCE / name))


def packaged() -> list[str]:
    """Those of them that the package is made of."""
    return [name for name in project() if not name.startswith(("tests/", "bench/", ".ci/"))]


def copy(names: Iterable[str], place: Path) -> None:
    """Copy files of the project to a directory, under their names."""
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(SOURCE / name, place / name, follow_symlinks=False)


# --- keys -----------------------------------------------------------------------------------------------


def content(path: Path) -> str:
    if path.is_symlink():
        return os.readlink(path)
    return f"{path.stat().st_mode} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    reason = missing_tools()
    if reason:
        print(f"no machines to test on: {reason}", file=sys.stderr)
    else:
        with ThreadPoolExecutor() as pool:
            list(pool.map(make, RELEASES))
