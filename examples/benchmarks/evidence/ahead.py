"""Runs several commands at once, each on processors of its own."""

import os
import queue
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor


def run_ahead(commands: Sequence[Sequence[str]], at_once: int) -> None:
    """Run commands, some of them side by side; each is told its processors by `--cores 0,1`.

    Side by side, cells get more done than one after the other with all processors each, since
    small networks train little faster on two of them; and each has as much as any other.

    Args:
        commands: Programs with their arguments; one that fails leaves the others alone.
        at_once: How many run at a time, at most one for every processor.
    """
    cores = sorted(os.sched_getaffinity(0))
    free: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    for first in range(at_once):
        free.put(cores[first::at_once])

    def run(command: Sequence[str]) -> None:
        mine = free.get()
        try:
            subprocess.run([*command, "--cores", ",".join(map(str, mine))], check=False)
        finally:
            free.put(mine)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(run, commands))
