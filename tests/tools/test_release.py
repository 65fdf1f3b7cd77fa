"""tools/release.py: what it refuses to release, and what it makes equal. `make release` builds for real."""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import release
from release import Facts, complaints, differences, facts, missing, normal, strays, sums

import stardust

TOP = Path(__file__).resolve().parents[2]
HEAD, OTHER = "a" * 40, "b" * 40

CHANGELOG = """# Changelog

## Unreleased

## 1.2.0 - 2026-11-29

### Added

- Something.

## 1.1.9 - 2026-10-01

- Something else.
"""
DEBIAN = "stardust (1.2.0) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n"
READY = Facts("1.2.0", CHANGELOG, DEBIAN, "", {"v1.1.9": OTHER, "nightly": OTHER}, HEAD)


# ── Versions ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_version_of_this_tree() -> None:
    assert release.VERSION.fullmatch(stardust.__version__)


def test_the_changelog_of_this_tree() -> None:
    """What is to come first; then releases with their dates, the newest first and none above the version."""
    titles = re.findall(r"(?m)^## (.*)$", (TOP / "CHANGELOG.md").read_text())
    assert "Unreleased" not in titles[1:]
    released = [re.fullmatch(r"(\S+) - \d{4}-\d\d-\d\d", title) for title in titles if title != "Unreleased"]
    names = [found[1] for found in released if found]
    assert len(names) == len(released)
    keys = [tuple(map(int, name.split("."))) for name in [stardust.__version__, *names]]
    assert keys == sorted(keys, reverse=True)


@pytest.mark.parametrize("text", ["1.2", "1.2.3.4", "01.2.3", "1.2.3-rc.1", "1.2.3+a", "v1.2.3", ""])
def test_no_version(text: str) -> None:
    assert f"The version {text!r} is not of the form X.Y.Z." in complaints(READY._replace(version=text))


# ── What is to be released ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "ready",
    [
        READY,
        READY._replace(tags={}),
        READY._replace(tags={"v1.2.0": HEAD, "v1.1.10": OTHER}),
        READY._replace(changelog=CHANGELOG.replace("## Unreleased\n\n", "")),
    ],
    ids=["not tagged", "the first one", "tagged", "without a section of what is to come"],
)
def test_ready(ready: Facts) -> None:
    assert complaints(ready) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"changes": " M README.md"}, "These changes are not committed:\n M README.md"),
        (
            {"changelog": CHANGELOG.replace("Unreleased\n", "Unreleased\n\n- New.\n")},
            "CHANGELOG.md still has entries under Unreleased: move them to 1.2.0.",
        ),
        (
            {"changelog": CHANGELOG.replace("1.2.0", "1.2.1")},
            "CHANGELOG.md has no section 1.2.0 above all others.",
        ),
        ({"changelog": "# Changelog\n"}, "CHANGELOG.md has no section 1.2.0 above all others."),
        (
            {"changelog": CHANGELOG.replace("2026-11-29", "2026-11-31")},
            "CHANGELOG.md has no date for 1.2.0: write '## 1.2.0 - YYYY-MM-DD'.",
        ),
        (
            {"changelog": CHANGELOG.replace("1.2.0 - 2026-11-29", "1.2.0")},
            "CHANGELOG.md has no date for 1.2.0: write '## 1.2.0 - YYYY-MM-DD'.",
        ),
        ({"changelog": CHANGELOG.replace("- Something.", "")}, "CHANGELOG.md says nothing about 1.2.0."),
        (
            {"debian": DEBIAN.replace("1.2.0", "1.1.9")},
            "packaging/debian/changelog does not begin with version 1.2.0.",
        ),
        ({"debian": ""}, "packaging/debian/changelog does not begin with version 1.2.0."),
        (
            {"debian": DEBIAN.replace("unstable", "UNRELEASED")},
            "packaging/debian/changelog says UNRELEASED: name the suite.",
        ),
        (
            {"tags": {"v1.2.0": OTHER}},
            "The tag v1.2.0 is at another commit: a version is released once.",
        ),
        ({"tags": {"v1.10.0": OTHER, "v1.9.0": OTHER}}, "v1.10.0 is newer than v1.2.0."),
    ],
)
def test_not_ready(change: dict[str, object], complaint: str) -> None:
    assert complaints(READY._replace(**change)) == [complaint]  # type: ignore[arg-type]


def git(top: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", "-C", top, *identity, *arguments], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with what is looked at, two commits, and a tag of each kind at the first."""
    for name, text in {
        "stardust/__init__.py": '__version__ = "1.2.0"\n',
        "CHANGELOG.md": CHANGELOG,
        "packaging/debian/changelog": DEBIAN,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    git(tmp_path, "tag", "v1.1.8")
    git(tmp_path, "tag", "--annotate", "v1.1.9", "--message", "a tag")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "second")
    return tmp_path


def test_the_facts_of_a_tree(tree: Path) -> None:
    first, second = git(tree, "rev-parse", "HEAD^"), git(tree, "rev-parse", "HEAD")
    tags = {"v1.1.8": first, "v1.1.9": first}
    assert facts(tree) == Facts("1.2.0", CHANGELOG, DEBIAN, "", tags, second)
    assert complaints(facts(tree)) == []


def test_what_is_not_committed(tree: Path) -> None:
    (tree / "new").touch()
    (tree / "CHANGELOG.md").write_text("")
    assert facts(tree).changes == " M CHANGELOG.md\n?? new"


def test_nothing_is_built_of_what_is_not_ready(tree: Path) -> None:
    (tree / "new").touch()
    with pytest.raises(
        SystemExit, match=r"Not ready to be released:\n- These changes are not committed:\n\?\? new"
    ):
        release.release(tree, tree / "dist")
    assert not (tree / "dist").exists()


# ── What is made equal ────────────────────────────────────────────────────────────────────────────────


def archive(names: list[str], mtime: int, mode: int, owner: str) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            member = tarfile.TarInfo(f"stardust-1.2.0/{name}")
            member.mtime, member.mode, member.uname, member.uid = mtime, mode, owner, len(owner)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return gzip.compress(plain.getvalue(), mtime=mtime)


def test_circumstances_are_taken_out_of_an_archive() -> None:
    one = archive(["a", "b", "link"], 1000, 0o644, "root")
    another = archive(["link", "b", "a"], 2000, 0o600, "somebody")
    assert one != another
    made = normal(one, 500, {"link": "../a"})
    assert normal(another, 500, {"link": "../a"}) == made
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        members = [(each.name, each.mtime, each.mode, each.uname, each.linkname) for each in tar]
        file = tar.extractfile("stardust-1.2.0/b")
        assert file is not None
        assert file.read() == b"b"
    assert members == [
        ("stardust-1.2.0/a", 500, 0o644, "", ""),
        ("stardust-1.2.0/b", 500, 0o644, "", ""),
        ("stardust-1.2.0/link", 500, 0o777, "", "../a"),
    ]


def test_what_can_be_run_still_can() -> None:
    with tarfile.open(fileobj=io.BytesIO(normal(archive(["a"], 1, 0o700, "root"), 1, {}))) as tar:
        assert [each.mode for each in tar] == [0o755]


def test_what_is_exported_is_what_git_means(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("export") / "place"
    release._export(tree, place)
    assert {path.stat().st_mode & 0o777 for path in place.rglob("*") if path.is_file()} == {0o644}
    assert (place / "CHANGELOG.md").read_text() == CHANGELOG
    assert not (place / ".git").exists()


# ── What is judged ────────────────────────────────────────────────────────────────────────────────────


def test_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("two")
    (tmp_path / "a").write_text("one")
    text = sums(release.hashes(tmp_path))
    assert [line.split("  ")[1] for line in text.splitlines()] == ["a", "b"]
    subprocess.run(
        ["sha256sum", "--check", "--strict"], input=text, text=True, cwd=tmp_path, check=True, timeout=60
    )


def test_differences() -> None:
    assert differences({"a": "1", "b": "2"}, {"a": "1", "b": "2"}) == []
    assert differences({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == ["a", "b", "c"]


def test_what_a_release_must_have() -> None:
    assert len(missing("1.2.0", set())) == 5
    assert missing("1.2.0", missing("1.2.0", set())) == set()


def test_strays() -> None:
    tracked = {"a", "tests/b", ".gitignore", ".ci/run"}
    assert strays(tracked, {"a", "tests/b", "PKG-INFO", "setup.cfg", "stardust.egg-info/SOURCES.txt"}) == []
    assert strays(tracked, {"a", "junk"}) == ["junk", "tests/b"]
