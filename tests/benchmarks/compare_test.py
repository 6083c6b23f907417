"""benchmarks/compare: what it runs, how it judges and what it writes. No program of ours or of the peers is needed."""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import pathlib
import select
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load_compare():
    """The script as a module, though its name has no ending."""
    loader = importlib.machinery.SourceFileLoader("compare", str(ROOT / "benchmarks" / "compare"))
    spec = importlib.util.spec_from_loader("compare", loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare"] = module  # dataclasses look themselves up there
    loader.exec_module(module)
    return module


compare = load_compare()

import measuring  # noqa: E402  compare has put its folder on the path

TRAINING = compare.scenarios.load()["flute"]
AGGREGATION = compare.scenarios.load()["aggregate_1m"]
ENCRYPTED = compare.scenarios.load()["tls_1m"]


def outcome(*lines, **values):
    made = compare.Outcome(**values)
    for line in lines:
        made.add(line)
    return made


def line(wall_s, cpu_s=1.0, **values):
    return {"version": "1", "wall_s": wall_s, "cpu_s": cpu_s, **values}


class Folder(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)

    def program(self, path, body):
        """An executable shell script."""
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n" + body)
        path.chmod(0o755)
        return path


class Scenarios(unittest.TestCase):
    def test_quick_changes_sizes_only(self):
        whole, quick = compare.scenarios.load(), compare.scenarios.load(quick=True)
        self.assertEqual(list(whole), list(quick))
        for name in whole:
            self.assertEqual(whole[name].keys(), quick[name].keys())
            self.assertEqual((whole[name]["kind"], whole[name]["title"]), (quick[name]["kind"], quick[name]["title"]))

    def test_every_driver_is_there(self):
        self.assertEqual({scenario["kind"] for scenario in compare.scenarios.load().values()}, set(compare.DRIVERS))
        for drivers in compare.DRIVERS.values():
            for driver in drivers.values():
                self.assertTrue((compare.PEERS / driver[0]).is_file(), driver[0])

    def test_our_experiment_is_the_scenario(self):
        data = pathlib.Path("data")
        made = compare.experiment("flute", TRAINING, data)
        self.assertEqual(made["partition"], {"name": "iid", "clients": 1000})  # 1000 × 60 = all of the training set
        self.assertEqual(made["trainer"], {"name": "sgd", "epochs": 1, "batch_size": 10, "learning_rate": 0.03})
        self.assertEqual((made["rounds"], made["round"]), (100, {"cohort": 10}))
        self.assertEqual(set(made["data"]) - {"name"}, {"train_images", "train_labels", "test_images", "test_labels"})
        few = compare.experiment("flute", TRAINING | {"clients": 20}, data)
        self.assertEqual(few["partition"]["samples_per_client"], 60)
        self.assertEqual(compare.experiment("lenet5", compare.scenarios.load()["lenet5"], data)["data"],
                         {"name": "cifar10", "folder": "data/colour"})


class Reading(unittest.TestCase):
    def test_training_has_the_times_that_the_run_states(self):
        output = "\n".join(json.dumps(found) for found in (
            {"round": 1, "wall_seconds": 0.25, "wall_seconds_evaluation": 9}, {"round": 2, "wall_seconds": 0.5},
            {"status": "finished", "accuracy": 0.75, "peak_rss_bytes": 7, "torch_version": "1.13.0", "seconds_rounds": 1.5, "cpu_seconds_rounds": 2}))
        self.assertEqual(compare.our_line(TRAINING, output, "0.1.0"),
                         {"version": "0.1.0, LibTorch 1.13.0", "wall_s": 1.5, "cpu_s": 2, "accuracy": 0.75, "peak_rss": 7})

    def test_encrypted_round(self):
        found = compare.our_line(ENCRYPTED, '{"round_seconds_best": 0.5, "aggregator_peak_rss_bytes": 9}', "0.1.0")
        self.assertEqual((found["wall_s"], found["cpu_s"], found["peak_rss"]), (0.5, None, 9))

    def test_best_of_turns_for_each_time(self):
        found = outcome(line(2, 5, accuracy=0.5, peak_rss=2), line(3, 4, accuracy=0.7, peak_rss=1))
        self.assertEqual((found.wall_s, found.cpu_s, found.peak_rss, found.accuracies), (2, 4, 2, [0.5, 0.7]))


class Measuring(Folder):
    """benchmarks/peers/measuring.py."""

    BURN = "import time\nwhile time.process_time() < 0.3: pass\n"

    def test_cpu_of_children_counts_once_they_are_waited_for_and_before(self):
        before = measuring.cpu_seconds()
        child = subprocess.Popen([sys.executable, "-c", self.BURN + "print(); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        running = measuring.cpu_seconds()
        child.communicate(b"\n")
        self.assertGreaterEqual(running - before, 0.25)
        self.assertGreaterEqual(measuring.cpu_seconds(), running)

    def test_meter_leaves_out_what_came_before(self):
        burnt = time.process_time() + 0.3
        while time.process_time() < burnt:
            pass
        meter = measuring.Meter()
        meter.start()
        meter.stop()
        self.assertLess(meter.cpu_s, 0.25)
        self.assertGreater(meter.wall_s, 0)
        self.assertEqual(set(meter.values()), {"wall_s", "cpu_s", "peak_rss"})

    def test_peak_memory_is_the_high_water_mark_of_all(self):
        own = measuring.peak_rss()
        child = subprocess.Popen([sys.executable, "-c", "bytearray(50_000_000); print(); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        self.assertGreater(measuring.peak_rss(), own + 50_000_000)
        child.communicate(b"\n")

    def test_report_is_the_line_that_compare_reads(self):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            measuring.report("peer", "1", "flute", 10, 100, wall_s=2, cpu_s=3, peak_rss=4, accuracy=0.5)
        found = outcome(json.loads(out.getvalue()))
        self.assertEqual((found.version, found.wall_s, found.cpu_s, found.peak_rss, found.accuracies), ("1", 2, 3, 4, [0.5]))


class Judging(unittest.TestCase):
    def judge(self, ours, theirs):
        outcomes = {compare.OURS: outcome(line(1, accuracy=ours)), "peer": outcome(line(1, accuracy=theirs))}
        return compare.disagreements("flute", TRAINING, outcomes)

    def test_accuracies_within_the_tolerance_agree(self):
        self.assertEqual(self.judge(0.75, 0.775), [])

    def test_others_do_not_and_the_sentence_names_both(self):
        (sentence,) = self.judge(0.75, 0.71)
        for part in ("flute", "peer", "0.7100", "0.7500", "0.03"):
            self.assertIn(part, sentence)

    def test_nothing_to_compare_without_accuracies(self):
        self.assertEqual(compare.disagreements("x", ENCRYPTED, {compare.OURS: outcome(line(1)), "peer": outcome(line(1))}), [])


class Table(unittest.TestCase):
    def rows(self, scenario, outcomes):
        return [[cell.strip() for cell in row.strip("|").split("|")] for row in compare.table(scenario, outcomes)[2:]]

    def test_ours_first_then_the_fastest_then_who_did_not_run(self):
        rows = self.rows(TRAINING, {"late": outcome(not_run="ModuleNotFoundError: a | b"), "slow": outcome(line(8, 6)), "fast": outcome(line(1, 1)),
                                    compare.OURS: outcome(line(2, 3, accuracy=0.75))})
        self.assertEqual([row[0] for row in rows], [compare.OURS, "fast", "slow", "late"])
        self.assertEqual(rows[0][2:7], ["2.00", "3.00", "1.00 ×", "1.00 ×", "500 clients/s"])  # 10 clients × 100 rounds in 2 s
        self.assertEqual(rows[0][8], "75.0 %")
        self.assertEqual(rows[2][4:6], ["4.00 ×", "2.00 ×"])
        self.assertEqual(rows[3][2], "not run: ModuleNotFoundError: a / b")
        self.assertEqual({len(row) for row in rows}, {9})

    def test_no_ratio_to_what_did_not_run(self):
        rows = self.rows(TRAINING, {compare.OURS: outcome(not_run="no build"), "peer": outcome(line(8))})
        self.assertEqual(rows[1][4:6], ["–", "–"])

    def test_rates(self):
        self.assertEqual(compare.rate(AGGREGATION, 0.025), "2.00 G parameters/s")  # 50 × 1 M
        self.assertEqual(compare.rate(ENCRYPTED, 0.1), "0.80 GB/s")                # 10 × 4 MB there and back

    def test_numbers_have_three_digits_and_no_exponent(self):
        self.assertEqual([compare.number(value) for value in (0.01234, 1.234, 12.34, 123.4, 1234.5, float("inf"), 0)],
                         ["0.0123", "1.23", "12.3", "123", "1234", "–", "–"])


class Running(Folder):
    def test_output_and_cpu(self):
        output = compare.run([self.program("ok", "echo hello")], 60)
        self.assertEqual(output, "hello\n")

    def refuse(self, body, timeout_s=60):
        with self.assertRaises(compare.NotRun) as refusal:
            compare.run([self.program("bad", body)], timeout_s)
        return str(refusal.exception)

    def test_a_failure_gives_its_last_words(self):
        self.assertEqual(self.refuse("echo first >&2; echo 'no module' >&2; exit 3"), "ended with 3: no module")
        self.assertEqual(self.refuse("exit 3"), "ended with 3")

    def test_what_takes_too_long_is_ended(self):
        self.assertEqual(self.refuse("sleep 1000", timeout_s=0), "took longer than 0 s")

    def test_so_are_its_children_even_deaf_ones(self):
        script = "(trap '' TERM; echo ready; sleep 1000) & wait"
        process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        compare.end_group(process)
        # The pipe ends when the last who holds it has; the limit only ends a test that failed.
        self.assertTrue(select.select([process.stdout], [], [], 60)[0], "a child still lives")
        self.assertEqual(process.stdout.read(), b"")

    def test_a_program_that_is_not_there(self):
        with self.assertRaisesRegex(compare.NotRun, "nothing is not there; build it"):
            compare.run([self.folder / "nothing"], 60)


class Whole(Folder):
    """main() with programs that pretend."""

    def compare(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = compare.main(["--build", str(self.folder / "build"), "--peers", str(self.folder / "peers"), "--turns", "2", *arguments])
        return code, out.getvalue(), err.getvalue()

    def pretend(self, ours=0.75, theirs=0.75):
        self.program("build/bin/fl", f"""case $1 in --version) echo 0.1.0; exit;; esac
test -f "$2" || exit 2
echo '{{"round": 1, "wall_seconds": 0.5}}'
echo '{{"status": "finished", "accuracy": {ours}, "torch_version": "1.13.0", "peak_rss_bytes": 1000000, "seconds_rounds": 0.5, "cpu_seconds_rounds": 0.5}}'
""")
        self.program("peers/venv/bin/python", f"""echo "$1" >> '{self.folder}/started'
case $1 in *pfl*) ;; *) echo "No module named '$(basename $1)'" >&2; exit 1;; esac
echo 'Metrics at iteration 0'
echo '{{"peer": "pfl-research", "version": "0.6.0", "wall_s": 2, "cpu_s": 3, "accuracy": {theirs}, "peak_rss": 5000000}}'
""")

    def test_table_of_a_scenario(self):
        self.pretend()
        code, out, err = self.compare("--scenario", "flute", "--raw", str(self.folder / "raw.jsonl"))
        self.assertEqual(code, 0, err)
        self.assertIn("| Tributary | 0.1.0, LibTorch 1.13.0 | 0.500 |", out)
        self.assertIn("| pfl-research | 0.6.0 | 2.00 | 3.00 | 4.00 × |", out)
        self.assertIn("| Flower simulation | – | not run: ended with 1: No module named 'flower_simulation.py' |", out)
        self.assertNotIn(str(self.folder), out)
        started = [pathlib.Path(driver).name for driver in (self.folder / "started").read_text().split()]
        self.assertEqual((started.count("pfl_simulation.py"), started.count("flower_simulation.py")), (2, 1), "who cannot run is not tried again")
        raw = [json.loads(text) for text in (self.folder / "raw.jsonl").read_text().splitlines()]
        self.assertEqual([(found["program"], found["turn"]) for found in raw],
                         [("Tributary", 1), ("pfl-research", 1), ("Tributary", 2), ("pfl-research", 2)])

    def test_other_work_is_an_error(self):
        self.pretend(theirs=0.5)
        code, _, err = self.compare("--scenario", "flute")
        self.assertEqual(code, 1)
        self.assertIn("pfl-research reached an accuracy of 0.5000 and Tributary 0.7500", err)

    def test_without_any_build_or_environment(self):
        code, out, err = self.compare("--scenario", "tls_1m", "--output", str(self.folder / "table.md"))
        self.assertEqual((code, out), (1, ""))
        text = (self.folder / "table.md").read_text()
        self.assertIn("not run: tls_round_scenario is not there; build it", text)
        self.assertIn("not run: no environment of the peers; run benchmarks/peers/setup", text)

    def test_a_busy_machine_is_said(self):
        with mock.patch.object(compare.os, "getloadavg", return_value=(3.2, 0, 0)):
            _, out, _ = self.compare("--scenario", "tls_1m")
        self.assertIn("busy with other work (load 3.2", out)

    def test_bad_arguments(self):
        for arguments in (["--scenario", "no"], ["--turns", "0"], ["--peer", "no"]):
            with self.assertRaises(SystemExit) as end, contextlib.redirect_stderr(io.StringIO()):
                compare.main(arguments)
            self.assertEqual(end.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
