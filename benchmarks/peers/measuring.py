"""How the peers' drivers are measured, and the line that tells of it. Standard library only."""

import json
import os
import pathlib
import resource
import time


def _processes(root):
    """root and its descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(_stat(entry)[1], []).append(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                pass  # it has just ended
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def _stat(process):
    """/proc/…/stat from the state on (the name before it may hold anything): [0] state, [1] parent, [11 … 14] CPU ticks."""
    text = pathlib.Path(f"/proc/{process}/stat").read_text()
    fields = text.rpartition(")")[2].split()
    return [fields[0], int(fields[1])] + [int(field) for field in fields[2:15]]


def cpu_seconds(root=None):
    """Of this process, its descendants, and those that they have waited for; in steps of 10 ms a process."""
    ticks = 0
    for process in _processes(root or os.getpid()):
        try:
            ticks += sum(_stat(process)[11:15])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_rss(root=None):
    """Sum of the high-water marks of this process and its living descendants, bytes. What they share counts for each."""
    total = 0
    for process in _processes(root or os.getpid()):
        try:
            for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += 1024 * int(line.split()[1])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def own_cpu_seconds():
    """Of this process alone, in steps of a microsecond."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Meter:
    """Measures what lies between start and stop: wall time, CPU time by `cpu`, peak memory at the end."""

    def __init__(self, cpu=cpu_seconds):
        self._cpu = cpu
        self.wall_s = self.cpu_s = self.peak_rss = None

    def start(self):
        self._cpu_before = self._cpu()
        self._before = time.perf_counter()

    def stop(self):
        self.wall_s = time.perf_counter() - self._before
        self.cpu_s = self._cpu() - self._cpu_before
        self.peak_rss = peak_rss()

    def values(self):
        return {"wall_s": self.wall_s, "cpu_s": self.cpu_s, "peak_rss": self.peak_rss}


def report(peer, version, scenario, clients, rounds, **values):
    """The one line on standard output that compare reads. clients: that took part in a round."""
    line = {"peer": peer, "version": version, "scenario": scenario, "clients": clients, "rounds": rounds, **values}
    print(json.dumps(line), flush=True)
