"""Runs a program and tells what it took as JSON: seconds on the clock and of CPU, and the most memory it held, in bytes.

The benchmark runs this by its path, in a process of its own. A child's peak begins at the memory of whoever starts it
(getrusage(2), ru_maxrss is kept over execve), and this one holds little. Its own start is in none of the figures. To
the CPU seconds belong those of the program's own children; the peak is that of the largest of them all.
"""

import json
import os
import sys
import time


def main(argv: list[str]) -> int:
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    began = time.monotonic()
    _, status, used = os.wait4(os.posix_spawnp(argv[0], argv, os.environ, file_actions=quiet), 0)
    wall = time.monotonic() - began
    print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024}))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
