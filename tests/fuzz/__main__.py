"""Runs the targets for long: `python -m tests.fuzz http1 worker response --runs 1000000`.

Guided by coverage where atheris is installed, unless --drawn says otherwise: then, or without it, the bytes
are drawn at random, those of requests by streams.py; that is ten times as fast, and as blind. Either way the
same seed makes the same run. A finding is kept as a file in tests/fuzz/findings/TARGET, where test_fuzz.py
finds it from then on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import subprocess
import sys
import time
import zlib
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

# What is fuzzed is imported under the eyes of atheris, which counts its branches; in the child that it runs.
GUIDED = "STARDUST_FUZZ_GUIDED"
with atheris.instrument_imports(include=["stardust"]) if GUIDED in os.environ else contextlib.nullcontext():
    from tests.fuzz.targets import FINDINGS, TARGETS, draw, seeds

WORK = Path(".fuzz")  # what atheris found worth keeping, by target
TELL = 30.0  # s; between two lines about how far it is


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all of them")
    parser.add_argument("--runs", type=int, default=100_000, help="requests of each; guided: inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--drawn", action="store_true", help="drawn at random, not guided by coverage")
    options = parser.parse_args()
    if GUIDED in os.environ:
        guided(os.environ[GUIDED], options.runs, options.seed)
    for name in options.targets or TARGETS:
        if atheris is None or options.drawn:
            drawn(name, options.runs, options.seed)
        else:
            command = [sys.executable, "-m", "tests.fuzz", f"--runs={options.runs}", f"--seed={options.seed}"]
            if subprocess.run(command, env={**os.environ, GUIDED: name}).returncode:
                sys.exit(f"{name}: a finding, in {FINDINGS / name}")


def drawn(name: str, runs: int, seed: int) -> None:
    """Until so many requests have been judged."""
    chance = random.Random(seed)
    target, made = TARGETS[name], draw(name, chance)
    began = told = time.monotonic()
    judged = inputs = 0
    while judged < runs:
        data = next(made)
        try:
            judged += target(data)
        except BaseException:
            keep(name, data)
            raise
        inputs += 1
        if time.monotonic() > told + TELL:
            told = time.monotonic()
            print(f"{name}: {judged} of {runs} requests", flush=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{name}: {judged} requests in {inputs} inputs, seed {seed}, {time.monotonic() - began:.0f} s, "
        f"{time.process_time():.0f} s of CPU time, {memory / 1024:.0f} MiB at most: no finding",
        flush=True,
    )


def guided(name: str, runs: int, seed: int) -> None:
    """Until so many inputs have been tried; never returns."""
    work = WORK / name
    work.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(name)):
        (work / f"seed-{number}").write_bytes(data)
    (FINDINGS / name).mkdir(parents=True, exist_ok=True)
    target = TARGETS[name]

    def judge(data: bytes) -> None:
        target(data)

    limits = ["-max_len=4096", "-timeout=60", "-print_final_stats=1", f"-artifact_prefix={FINDINGS / name}/"]
    atheris.Setup([sys.argv[0], f"-runs={runs}", f"-seed={seed}", *limits, str(work)], judge)
    atheris.Fuzz()


def keep(name: str, data: bytes) -> None:
    path = FINDINGS / name / f"{zlib.crc32(data):08x}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"{name}: a finding, {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
