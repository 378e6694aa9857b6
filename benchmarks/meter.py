"""Runs a program and tells what it took as JSON: seconds on the clock and of CPU, and the most memory it held, in bytes.

The benchmark runs this by its path, in a process of its own. A child's peak begins at the memory of whoever starts it
(getrusage(2), ru_maxrss is kept over execve), and this one holds little. Its own start is in none of the figures. To
the CPU seconds belong those of the program's own children. The peak is that of the largest of them all, or what all of
them together held at one of the looks that are taken meanwhile (shared memory once), whichever is more. A child counts
from the second look on: until it executes its program it has the memory of whoever started it.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

INTERVAL = 0.05


def main(argv: list[str]) -> int:
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    began = time.monotonic()
    program = os.posix_spawnp(argv[0], argv, os.environ, file_actions=quiet)
    ended, together = threading.Event(), [0]
    watch = threading.Thread(target=look, args=(program, ended, together))
    watch.start()
    _, status, used = os.wait4(program, 0)
    wall = time.monotonic() - began
    ended.set()
    watch.join()
    peak = max(used.ru_maxrss * 1024, *together)
    print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": peak}))
    return os.waitstatus_to_exitcode(status)


def look(program: int, ended: threading.Event, together: list[int]) -> None:
    before: set[int] = set()
    while not ended.wait(INTERVAL):
        now = {*children(program)}
        family, before = [program, *(now & before)], now
        if len(family) > 1:
            together.append(sum(held(one) for one in family) + max(shared(one) for one in family))


def children(process: int) -> list[int]:
    """Of all its threads."""
    found: list[int] = []
    for thread in listed(f"/proc/{process}/task"):
        found += map(int, read(f"/proc/{process}/task/{thread}/children").split())
    return found


def held(process: int) -> int:
    """Memory of its own, and pages of files."""
    return status_of(process, "RssAnon") + status_of(process, "RssFile")


def shared(process: int) -> int:
    return status_of(process, "RssShmem")


def status_of(process: int, name: str) -> int:
    for line in read(f"/proc/{process}/status").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def listed(folder: str) -> list[str]:
    try:
        return [entry.name for entry in Path(folder).iterdir()]
    except OSError:  # it has ended
        return []


def read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
