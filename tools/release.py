"""Makes what is released, each of it twice, and compares: source distribution, wheel, Debian package.

    python tools/release.py [OUTPUT_DIRECTORY]

First it checks what is committed: that there is nothing beside it, and that the version is told alike
everywhere. Then it builds all in two places, under another umask, time zone, locale and order of hashes, a
while apart. One byte of difference is a failure. At last dist/ (or the directory named) has the files and
their SHA256SUMS. Nothing is tagged, pushed or uploaded: the last line says what remains to be done.

Runs in a virtual environment with packaging/requirements.txt, where Build-Depends of packaging/debian/control
are installed; `make release` sees to both.
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parents[1]

# Of semver.org without what stands behind a hyphen or a plus: PEP 440 and Debian write that in other ways.
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
# What `dpkg-buildpackage` leaves beside the package: when, where and with what it was built, never the same.
_CIRCUMSTANCES = (".buildinfo", ".changes")
# Of the files that git knows, those that are for its users only.
_NOT_DISTRIBUTED = re.compile(r"\.git|\.ci/")
# What setuptools adds.
_ADDED = re.compile(r"PKG-INFO|setup\.cfg|stardust\.egg-info/[^/]+")


# ── What is to be released ────────────────────────────────────────────────────────────────────────────


class Facts(NamedTuple):
    """What a release is judged by.

    `version` is that of `stardust/__init__.py`; `changelog` and `debian` are the texts of CHANGELOG.md and
    packaging/debian/changelog; `changes` is what is not committed, of `git status --short`; `tags` has the
    commit of each tag; `head` is the commit that is to be released.
    """

    version: str
    changelog: str
    debian: str
    changes: str
    tags: Mapping[str, str]
    head: str


def complaints(facts: Facts) -> list[str]:
    """All that is to be done before this can be released, a sentence each."""
    found = []
    if facts.changes:
        found.append(f"These changes are not committed:\n{facts.changes}")
    if not VERSION.fullmatch(facts.version):
        found.append(f"The version {facts.version!r} is not of the form X.Y.Z.")
    found += _of_changelog(facts.changelog, facts.version)
    found += _of_debian(facts.debian, facts.version)
    found += _of_tags(facts)
    return found


def _of_changelog(text: str, version: str) -> list[str]:
    """Keep a Changelog 1.1.0: "## 1.2.3 - 2026-11-22", the newest first; what is to come: "## Unreleased"."""
    sections = re.findall(r"(?ms)^## +(.+?) *$(.*?)(?=^## |\Z)", text)
    found = []
    if any(title == "Unreleased" and body.strip() for title, body in sections):
        found.append(f"CHANGELOG.md still has entries under Unreleased: move them to {version}.")
    released = [(title, body) for title, body in sections if title != "Unreleased"]
    title, body = released[0] if released else ("", "")
    name, _, date = title.partition(" - ")
    if name != version:
        return [*found, f"CHANGELOG.md has no section {version} above all others."]
    try:
        datetime.date.fromisoformat(date)
    except ValueError:
        found.append(f"CHANGELOG.md has no date for {version}: write '## {version} - YYYY-MM-DD'.")
    if not re.search(r"(?m)^- ", body):
        found.append(f"CHANGELOG.md says nothing about {version}.")
    return found


def _of_debian(text: str, version: str) -> list[str]:
    """deb-changelog(5): "stardust (1.2.3) unstable; urgency=medium", the newest first."""
    first = re.match(r"stardust \((.+?)\) (\S+);", text)
    if first is None or first[1] != version:
        return [f"packaging/debian/changelog does not begin with version {version}."]
    if first[2] == "UNRELEASED":
        return ["packaging/debian/changelog says UNRELEASED: name the suite."]
    return []


def _of_tags(facts: Facts) -> list[str]:
    tag = f"v{facts.version}"
    found = []
    if facts.tags.get(tag, facts.head) != facts.head:
        found.append(f"The tag {tag} is at another commit: a version is released once.")
    released = [name for name in facts.tags if VERSION.fullmatch(name.removeprefix("v")) and name != tag]
    if newer := [name for name in released if VERSION.fullmatch(facts.version) and _key(name) > _key(tag)]:
        found.append(f"{max(newer, key=_key)} is newer than {tag}.")
    return found


def _key(tag: str) -> tuple[int, ...]:
    return tuple(map(int, tag.removeprefix("v").split(".")))


def facts(top: Path) -> Facts:
    """Of the git tree at `top`."""
    listed = _git(top, "for-each-ref", "--format=%(refname:short) %(objectname) %(*objectname)", "refs/tags")
    # An annotated tag is an object of its own; the commit stands behind it.
    tags = {words[0]: words[-1] for words in map(str.split, listed.splitlines())}
    module = (top / "stardust/__init__.py").read_text(encoding="utf-8")
    version = re.search(r'(?m)^__version__ = "(.*)"$', module)
    return Facts(
        version=version[1] if version else "",
        changelog=(top / "CHANGELOG.md").read_text(encoding="utf-8"),
        debian=(top / "packaging/debian/changelog").read_text(encoding="utf-8"),
        changes=_git(top, "status", "--short").rstrip(),
        tags=tags,
        head=_git(top, "rev-parse", "HEAD").strip(),
    )


def _git(top: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", top, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


# ── Building it ───────────────────────────────────────────────────────────────────────────────────────


class Circumstances(NamedTuple):
    """In which a build must make no difference."""

    place: str
    umask: int
    environment: Mapping[str, str]


ONE = Circumstances("a", 0o022, {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "1"})
ANOTHER = Circumstances(
    "another/place", 0o077, {"LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "2"}
)


def build(top: Path, work: Path, circumstances: Circumstances) -> Path:
    """A new folder below `work` with all that is released of the last commit of `top`."""
    home = work / circumstances.place
    output = home / "output"
    output.mkdir(parents=True)
    epoch = _git(top, "log", "-1", "--format=%ct").strip()
    environment = {**os.environ, **circumstances.environment, "HOME": str(home), "SOURCE_DATE_EPOCH": epoch}
    for name in ("python", "debian"):  # each its own, for a build leaves things behind
        _export(top, home / name)

    def run(*command: object, umask: int) -> None:
        log = home / "log"
        with log.open("ab") as file:
            done = subprocess.run(
                list(map(str, command)), env=environment, umask=umask, stdout=file, stderr=file
            )
        if done.returncode:
            sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
            raise SystemExit(f"release.py: {command[0]} failed with exit code {done.returncode}")

    # setuptools puts the modes that files happen to have into a wheel; build-deb.sh sees to that itself.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, home / "python", umask=0o022)
    run(home / "debian/packaging/build-deb.sh", output, umask=circumstances.umask)
    for path in [*output.iterdir()]:
        if path.suffix in _CIRCUMSTANCES:
            path.unlink()
        elif path.name.endswith(".tar.gz"):
            path.write_bytes(normal(path.read_bytes(), int(epoch), _links(home / "debian")))
    return output


def _export(top: Path, place: Path) -> None:
    """What is committed, with the modes that git means, whatever the umask."""
    place.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "-C", top, "-c", "tar.umask=0022", "archive", "HEAD"], check=True, stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-x", "--preserve-permissions", "-C", place], check=True, input=archive.stdout)


def _links(place: Path) -> dict[str, str]:
    """Where the symbolic links below `place` lead, by their paths."""
    return {
        str(path.relative_to(place)): str(path.readlink()) for path in place.rglob("*") if path.is_symlink()
    }


def normal(archive: bytes, epoch: int, links: Mapping[str, str]) -> bytes:
    """A source distribution without what setuptools puts in of its circumstances: moment, modes, owner.

    setuptools heeds SOURCE_DATE_EPOCH in wheels only. `epoch` is the moment that all gets, in seconds since
    1970. setuptools also makes files of `links`, which become links again.
    """
    plain = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as old,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda each: each.name):
            content = old.extractfile(member) if member.isreg() else None
            member.mtime = epoch
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.pax_headers = {}
            if leads := links.get(member.name.partition("/")[2]):
                member.type, member.linkname, member.size, member.mode = tarfile.SYMTYPE, leads, 0, 0o777
                content = None
            new.addfile(member, content)
    return gzip.compress(plain.getvalue(), mtime=epoch)


# ── Judging what was built ────────────────────────────────────────────────────────────────────────────


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file, by its name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def sums(hashes: Mapping[str, str]) -> str:
    """As sha256sum(1) writes and checks them."""
    return "".join(f"{value}  {name}\n" for name, value in hashes.items())


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """The files that are not twice the same."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def missing(version: str, names: set[str]) -> set[str]:
    """What a release has, and this has not."""
    return {
        f"stardust-{version}.tar.gz",
        f"stardust-{version}-py3-none-any.whl",
        f"stardust_{version}.dsc",
        f"stardust_{version}.tar.xz",
        f"stardust_{version}_all.deb",
    } - names


def strays(tracked: set[str], distributed: set[str]) -> list[str]:
    """What is in the source distribution and should not be, or the other way round."""
    due = {name for name in tracked if not _NOT_DISTRIBUTED.match(name)}
    return sorted(due ^ {name for name in distributed if not _ADDED.fullmatch(name)})


def distributed(archive: Path) -> set[str]:
    """The files of a source distribution, without the folder that all are in."""
    with tarfile.open(archive) as tar:
        return {member.name.partition("/")[2] for member in tar if not member.isdir()}


# ── The whole ─────────────────────────────────────────────────────────────────────────────────────────


def release(top: Path, output: Path) -> str:
    """Builds what is at `top` into `output`; what to say at the end. SystemExit says what is wrong."""
    known = facts(top)
    if found := complaints(known):
        raise SystemExit("\n".join(["Not ready to be released:", *(f"- {each}" for each in found)]))
    with tempfile.TemporaryDirectory(prefix="stardust-release-") as work:
        print("Building once ...", flush=True)
        first = build(top, Path(work), ONE)
        print("Building once more ...", flush=True)
        second = build(top, Path(work), ANOTHER)
        found = differences(hashes(first), hashes(second))
        found += sorted(missing(known.version, set(hashes(first))))
        found += strays(
            set(_git(top, "ls-files").split("\n")) - {""},
            distributed(first / f"stardust-{known.version}.tar.gz"),
        )
        if found:
            kept = Path(tempfile.mkdtemp(prefix="stardust-differs-"))
            shutil.copytree(work, kept, dirs_exist_ok=True, symlinks=True)
            raise SystemExit("\n".join([f"Not as it must be, see {kept}:", *(f"- {each}" for each in found)]))
        output.mkdir(parents=True, exist_ok=True)
        for path in first.iterdir():
            shutil.copyfile(path, output / path.name)
        text = sums(hashes(first))
    (output / "SHA256SUMS").write_text(text, encoding="utf-8")
    tag = f"v{known.version}"
    rest = f"git push origin {tag}"
    if tag not in known.tags:
        rest = f"git tag --annotate {tag} --message 'stardust {known.version}' && {rest}"
    return f"{text}\nTwice the same, in {output}. What remains: {rest}"


def main() -> None:
    print(release(TOP, Path(sys.argv[1]) if sys.argv[1:] else TOP / "dist"))


if __name__ == "__main__":
    main()
