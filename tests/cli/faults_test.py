"""Runs that are killed, interrupted, starved of disk or damaged either go on to the bits of the undisturbed run, or say in one
line what to do. Nothing that was finished is lost."""

import json
import pathlib
import random
import resource
import shutil
import signal
import sqlite3
import tempfile
import time

import support
from support import experiment, metrics, read_json, sha256_of

ROUNDS = 60
KILLS = 10


def wait_for_round(process, number):
    """Reads standard output up to the report of a round (or a later one) and returns that round."""
    for line in process.stdout:
        report = json.loads(line)
        if report.get("round", 0) >= number:
            return report["round"]
    raise AssertionError(f"the run ended before round {number}")


class FaultTest(support.CliTest):
    """A test with an undisturbed run to compare with. It is the same for all, so it is made once."""

    reference = None

    def setUp(self):
        super().setUp()
        self.file = self.write("quick.json", experiment(rounds=ROUNDS))
        if FaultTest.reference is None:
            run = self.simulate(self.file, "reference")
            FaultTest.reference = (run["model_sha256"], metrics(self.folder / "reference"), run["accuracy"])

    def assert_as_undisturbed(self, folder):
        sha256, rounds, accuracy = self.reference
        run = read_json(self.folder / folder / "run.json")
        self.assertEqual((run["status"], run["model_sha256"], run["accuracy"]), ("finished", sha256, accuracy))
        self.assertEqual(sha256_of(self.folder / folder / "model.safetensors"), sha256)
        self.assertEqual([one["round"] for one in metrics(self.folder / folder)], list(range(1, ROUNDS + 1)))
        self.assertEqual(metrics(self.folder / folder), rounds)

    def resume_to_the_end(self, folder, *arguments):
        result = self.fl("resume", folder, "--json", *arguments)
        self.assert_as_undisturbed(folder)
        return result.objects()

    def interrupted(self, folder="run", at=ROUNDS // 2):
        """A run that stopped in order somewhere behind round `at`."""
        process = self.start("simulate", self.file, "--output", folder, "--json")
        wait_for_round(process, at)
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.finish(process).code, 130)
        return self.folder / folder


class Kill(FaultTest):
    def kill_at(self, command, number, delay_s):
        """Kills a command within the round after `number`; the delay spreads the kills over its steps."""
        process = self.start(*command, "--json")
        wait_for_round(process, number)
        time.sleep(delay_s)
        process.kill()
        self.assertEqual(self.finish(process).code, -signal.SIGKILL, "the run must still be on its way")

    def test_ends_as_undisturbed_after_kills_at_random_moments(self):
        rng = random.Random(20240501)
        for i in range(KILLS):
            workers, number, delay_s = rng.choice(["1", "2", "3"]), rng.randint(1, ROUNDS * 3 // 4), rng.uniform(0, 0.01)
            with self.subTest(kill=i, round=number, delay_s=delay_s, workers=workers):
                folder = f"killed-{i}"
                self.kill_at(["simulate", self.file, "--output", folder, "--workers", workers], number, delay_s)
                if i % 5 == 0:
                    # The run that goes on is killed as well.
                    self.kill_at(["resume", folder], number + 2, rng.uniform(0, 0.01))
                self.resume_to_the_end(folder)

    def test_ends_as_undisturbed_when_killed_while_it_starts(self):
        for there in ("", "lock", "experiment.json", "journal.db", "model.safetensors"):
            with self.subTest(killed_once_there_is=there or "nothing"):
                folder = "early-" + there
                process = self.start("simulate", self.file, "--output", folder)
                while there and process.poll() is None and not (self.folder / folder / there).exists():
                    time.sleep(0.0005)
                process.kill()
                self.finish(process)
                if (self.folder / folder / "experiment.json").exists():
                    self.resume_to_the_end(folder)
                else:
                    result = self.fl("resume", folder, code=2)
                    self.assert_one_error_line(result, folder, "not a run folder")
                    self.simulate(self.file, folder)
                    self.assert_as_undisturbed(folder)


class Interrupt(FaultTest):
    def test_stops_in_order_and_goes_on_to_the_same_bits(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number.name):
                process = self.start("simulate", self.file, "--output", number.name, "--json")
                shown = wait_for_round(process, ROUNDS // 3)
                process.send_signal(number)
                result = self.finish(process)
                self.assertEqual(result.code, 130)
                self.assert_one_error_line(result, "interrupted after round", f"fl resume {number.name}")
                reports = result.objects()
                last = reports[-1]["round"] if reports else shown
                run = read_json(self.folder / number.name / "run.json")
                self.assertEqual((run["status"], run["rounds"]), ("interrupted", last))
                self.assertEqual([one["round"] for one in metrics(self.folder / number.name)], list(range(1, last + 1)))
                rest = self.resume_to_the_end(number.name)
                self.assertEqual([one["round"] for one in rest[:-1]], list(range(last + 1, ROUNDS + 1)))

    def test_stops_within_a_round_that_would_take_hours(self):
        file = self.write("slow.json", experiment(trainer={"name": "sgd", "epochs": 100000}))
        for command in (["simulate", file, "--output", "slow"], ["resume", "slow"]):
            process = self.start(*command)
            for line in process.stderr:
                if b" -> slow" in line:  # the last line before the first round
                    break
            process.send_signal(signal.SIGINT)
            # A run that ends at all does not wait for its round.
            result = self.finish(process)
            self.assertEqual(result.code, 130)
            self.assert_one_error_line(result, "interrupted after round 0 of", "fl resume slow")


class FullDisk(FaultTest):
    """A file-size limit makes write() fail as a full disk does; it strikes file by file, so small limits strike early."""

    def test_says_so_in_one_line_and_loses_nothing(self):
        struck_at = set()
        for limit in (1 << 10, 8 << 10, 80 << 10, 300 << 10):
            with self.subTest(limit=limit):
                folder = f"full-{limit}"
                result = self.fl("simulate", self.file, "--output", folder, "--json", code=4, preexec_fn=lambda: limit_files(limit))
                self.assert_one_error_line(result, folder)
                self.assertRegex(result.last_error(), "(free some space|check the disk), then go on with 'fl resume'")
                shown = [one["round"] for one in result.objects() if "round" in one]
                self.assertEqual(shown, list(range(1, len(shown) + 1)))
                struck_at.add(len(shown))
                if not (self.folder / folder / "experiment.json").exists():
                    self.simulate(self.file, folder)
                    self.assert_as_undisturbed(folder)
                    continue
                rest = [one["round"] for one in self.resume_to_the_end(folder)[:-1]]
                self.assertEqual(rest, list(range(ROUNDS - len(rest) + 1, ROUNDS + 1)))
                self.assertGreaterEqual(ROUNDS - len(rest), len(shown), "a round that was finished is not done again")
        self.assertTrue(any(0 < number < ROUNDS for number in struck_at), "some limit must strike in the middle")

    def test_resume_on_a_full_disk_loses_nothing(self):
        folder = self.interrupted()
        before = metrics(folder)
        result = self.fl("resume", "run", code=4, preexec_fn=lambda: limit_files(4 << 10))
        self.assert_one_error_line(result, "run")
        self.assertEqual(metrics(folder)[:len(before)], before)
        self.resume_to_the_end("run")


def limit_files(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class TwoProcesses(FaultTest):
    def test_the_second_is_refused_and_the_first_undisturbed(self):
        first = self.start("simulate", self.file, "--output", "run", "--json")
        wait_for_round(first, 3)
        first.send_signal(signal.SIGSTOP)
        try:
            for command in (["simulate", self.file, "--output", "run"], ["resume", "run"]):
                self.assert_one_error_line(self.fl(*command, code=2), "run is in use by process " + str(first.pid))
        finally:
            first.send_signal(signal.SIGCONT)
        self.assertEqual(self.finish(first).code, 0)
        self.assert_as_undisturbed("run")


class Damage(FaultTest):
    """Every test damages a copy of one run that was interrupted in the middle."""

    stopped = None

    def setUp(self):
        super().setUp()
        self.run_folder = self.folder / "run"
        if Damage.stopped is None:
            kept = tempfile.TemporaryDirectory(prefix="fl-cli-")
            self.addClassCleanup(kept.cleanup)
            Damage.stopped = shutil.copytree(self.interrupted(), pathlib.Path(kept.name) / "run")
        else:
            shutil.copytree(Damage.stopped, self.run_folder)

    def newest(self, column):
        journal = sqlite3.connect(self.run_folder / "journal.db")
        try:
            return journal.execute(f"SELECT {column} FROM rounds ORDER BY round DESC LIMIT 1").fetchone()[0]
        finally:
            journal.close()

    def assert_refused(self, *parts):
        self.assert_one_error_line(self.fl("resume", "run", code=2), *parts)

    def test_a_damaged_journal_is_named(self):
        journal = self.run_folder / "journal.db"
        good = journal.read_bytes()
        damages = {
            "no database": b"not a database" * 100,
            "cut in half": good[:len(good) // 2],
            "a page overwritten": good[:4096] + bytes(random.Random(7).randrange(256) for _ in range(4096)) + good[8192:],
        }
        for damage, content in damages.items():
            with self.subTest(damage):
                journal.write_bytes(content)
                self.assert_refused("journal.db", "damaged", "restore the run folder from a copy")
        journal.write_bytes(good)
        self.resume_to_the_end("run")

    def test_a_damaged_or_missing_blob_is_named(self):
        for column in ("model_sha256", "state_sha256"):
            blob = self.run_folder / "blobs" / self.newest(column)
            good = blob.read_bytes()
            flipped = bytearray(good)
            flipped[-1] ^= 1
            for damage, content in (("flipped", bytes(flipped)), ("cut", good[:-1])):
                with self.subTest(blob=column, damage=damage):
                    blob.write_bytes(content)
                    self.assert_refused(blob.name, "is damaged: expected SHA-256", "restore the run folder from a copy")
            with self.subTest(blob=column, damage="missing"):
                blob.unlink()
                self.assert_refused(blob.name, "is missing")
            blob.write_bytes(good)
        self.resume_to_the_end("run")

    def test_metrics_are_written_anew(self):
        lines = (self.run_folder / "metrics.jsonl").read_bytes()
        for damage, content in (("cut", lines[:-40]), ("no_lines", b""), ("garbage", lines + b'{"round": \xff\n')):
            with self.subTest(damage):
                shutil.copytree(self.run_folder, self.folder / damage)
                (self.folder / damage / "metrics.jsonl").write_bytes(content)
                self.resume_to_the_end(damage)

    def test_files_that_follow_from_the_journal_are_written_anew(self):
        for name in ("metrics.jsonl", "model.safetensors", "partition.json", "run.json", "lock"):
            (self.run_folder / name).unlink()
        self.resume_to_the_end("run")
        for name in ("partition.json", "report.html"):
            self.assertTrue((self.run_folder / name).exists(), name)

    def test_a_damaged_experiment_is_named(self):
        path = self.run_folder / "experiment.json"
        good = path.read_text(encoding="utf-8")
        path.write_text(good[:len(good) // 2], encoding="utf-8")
        self.assert_refused("experiment.json:", "not valid JSON")
        path.unlink()
        self.assert_refused("run: not a run folder (no experiment.json)")
        path.write_text(good, encoding="utf-8")
        self.resume_to_the_end("run")

    def test_data_that_changed_are_refused(self):
        def csv(first):
            return "x,y,label\n" + "".join(f"{first if i == 0 else i},{i % 7},{i % 3}\n" for i in range(60))

        self.write("data.csv", csv(0))
        document = experiment(rounds=3, round={"cohort": 3}, partition={"name": "iid", "clients": 5},
                              data={"name": "csv", "train": "data.csv", "test_fraction": 0.2})
        file = self.write("csv.json", document)
        self.simulate(file, "csv")
        self.write("data.csv", csv(5))
        self.assert_one_error_line(self.fl("resume", "csv", code=2), "data: the files have changed since this run began")


class Finished(FaultTest):
    def test_resume_of_a_finished_run_changes_nothing(self):
        self.simulate(self.file, "run")
        before = {path.name: path.read_bytes() for path in (self.folder / "run").iterdir()
                  if path.name in ("experiment.json", "metrics.jsonl", "model.safetensors", "partition.json")}
        self.assertEqual(len(before), 4)
        summary = self.resume_to_the_end("run")
        self.assertEqual([one.get("model_sha256") for one in summary], [self.reference[0]], "no round is done again")
        self.assertEqual({name: (self.folder / "run" / name).read_bytes() for name in before}, before)

    def test_simulate_into_a_finished_run_is_refused(self):
        self.simulate(self.file, "run")
        result = self.fl("simulate", self.file, "--output", "run", code=2)
        self.assert_one_error_line(result, "run already holds a run", "fl resume run")
        self.assert_as_undisturbed("run")


if __name__ == "__main__":
    support.main()
