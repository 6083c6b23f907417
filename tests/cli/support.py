"""What the tests of the fl program share: running it in a folder of its own, small experiments, and how results compare."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "simulations" / "experiments"
TINY = EXPERIMENTS / "tiny.json"
# Not a limit on speed: ends a program that hangs.
HANGS_AFTER_S = 120


def experiment(**changes):
    """An experiment whose rounds take a few milliseconds, with dropout and with a server state that a resume must restore."""
    document = {
        "name": "quick",
        "seed": 3,
        "rounds": 100,
        "data": {"name": "synthetic", "examples": 400, "test_examples": 100, "input": [8], "classes": 4},
        "partition": {"name": "dirichlet", "clients": 20, "alpha": 0.5},
        "model": {"name": "spec", "stages": [{"linear": {"out": 16}}, {"relu": {}}, {"dropout": {"probability": 0.1}},
                                             {"linear": {"out": "classes"}}]},
        "trainer": {"name": "sgd", "batch_size": 10, "learning_rate": 0.05},
        "strategy": {"name": "fedopt", "optimizer": "adam"},
        "evaluation": {"every": 5},
        "round": {"cohort": 5},
    }
    document.update(changes)
    return document


def read_json(path):
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def sha256_of(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def metrics(folder):
    """metrics.jsonl without the fields that a clock decides."""
    lines = (pathlib.Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.startswith("wall_seconds")} for line in lines]


def pinned_cpus(process):
    """The CPUs of the process's threads that may run on one only; it has a wider mask itself."""
    cpus = []
    for thread in pathlib.Path(f"/proc/{process}/task").iterdir():
        mask = os.sched_getaffinity(int(thread.name))
        if len(mask) == 1:
            cpus += mask
    return sorted(cpus)


class Result:
    """What a finished command left: its exit code, standard output and standard error."""

    def __init__(self, code, out, err):
        self.code = code
        self.out = (out or b"").decode("utf-8", "replace")
        self.err = err.decode("utf-8", "replace")

    def objects(self):
        """Standard output as one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def last_error(self):
        lines = self.err.splitlines()
        return lines[-1] if lines else ""


class CliTest(unittest.TestCase):
    """A test with an empty folder, in which every command of it runs."""

    program = None

    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="fl-cli-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def write(self, name, content):
        """A file in the test's folder: bytes, text, or anything else as JSON."""
        path = self.folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def start(self, *arguments, **options):
        """A running command; it is killed at the end of the test if it still runs then."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen([self.program, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL, **options)
        self.addCleanup(_end, process)
        return process

    def finish(self, process):
        out, err = process.communicate(timeout=HANGS_AFTER_S)
        return Result(process.returncode, out, err)

    def fl(self, *arguments, code=0, **options):
        """Runs a command to its end, and checks the exit code."""
        result = self.finish(self.start(*arguments, **options))
        self.assertEqual(result.code, code, f"fl {' '.join(map(str, arguments))}\n{result.out}\n{result.err}")
        return result

    def simulate(self, file, output, *arguments, code=0, **options):
        """Runs `fl simulate` quietly; returns run.json."""
        self.fl("simulate", file, "--output", output, "--json", *arguments, code=code, **options)
        return read_json(self.folder / output / "run.json")

    def assert_one_error_line(self, result, *parts):
        """The house's form: one line "fl: …" at the end of standard error that holds every part."""
        lines = result.err.splitlines()
        self.assertTrue(lines, "nothing on standard error")
        self.assertTrue(lines[-1].startswith("fl: "), result.err)
        self.assertEqual([line for line in lines[:-1] if line.startswith("fl: ")], [], "one error is one line")
        self.assertNotRegex(result.err, r"terminate called|what\(\)|\.cpp:|\[json\.exception|unexpected error|Exception raised from")
        self.assertTrue(result.err.endswith("\n"))
        for part in parts:
            self.assertIn(part, lines[-1])


def _end(process):
    if process.poll() is None:
        process.kill()
    process.communicate()


def main():
    """`SCRIPT FL [unittest's arguments]`"""
    if len(sys.argv) < 2 or not os.access(sys.argv[1], os.X_OK):
        sys.exit(f"usage: {sys.argv[0]} PATH_OF_FL [TEST…]: expected the program to test first")
    CliTest.program = os.path.abspath(sys.argv[1])
    unittest.main(module="__main__", argv=[sys.argv[0], *sys.argv[2:]])
