"""Runs under mpirun: the bits of one process for any number of ranks, and an orderly end when ranks die or are stopped.

FL_MPIRUN in the environment names mpirun; where it is empty, fl was built without MPI and must say so."""

import json
import os
import pathlib
import signal
import unittest

import support
from faults_test import wait_for_round
from parity_test import EVERYTHING, PRESET, result_of
from support import TINY, experiment, metrics, read_json, sha256_of

MPIRUN = os.environ.get("FL_MPIRUN", "")
needs_mpi = unittest.skipUnless(MPIRUN, "fl was built without MPI")


def environment():
    """mpirun refuses root and more ranks than cores unless it is told that this is meant."""
    return dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
                OMPI_MCA_hwloc_base_binding_policy="none")


def rank_of(mpirun, number):
    """The process id of a rank."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if parent == mpirun.pid and b"OMPI_COMM_WORLD_RANK=%d" % number in variables:
            return int(folder.name)
    raise AssertionError(f"mpirun has no rank {number}")


class MpiTest(support.CliTest):
    def start_on(self, ranks, *arguments, **settings):
        fl = self.program
        try:
            self.program = MPIRUN
            return self.start("-n", str(ranks), fl, *arguments, env=dict(environment(), **settings))
        finally:
            self.program = fl

    def on(self, ranks, *arguments, code=0):
        result = self.finish(self.start_on(ranks, *arguments))
        self.assertEqual(result.code, code, f"{ranks} ranks: fl {' '.join(map(str, arguments))}\n{result.out}\n{result.err}")
        return result

    def simulate_on(self, ranks, file, output, *arguments):
        result = self.on(ranks, "simulate", file, "--output", output, "--json", *arguments)
        return read_json(self.folder / output / "run.json"), result.objects()

    def assert_said(self, result, *parts):
        """One error of ours among what mpirun says."""
        lines = [line for line in result.err.splitlines() if line.startswith("fl: ")]
        self.assertEqual(len(lines), 1, result.err)
        for part in parts:
            self.assertIn(part, lines[0])


@needs_mpi
class Parity(MpiTest):
    def assert_same_for_any_ranks(self, file):
        first = self.simulate(file, "alone", "--workers", "2")
        for ranks, workers in ((1, "2"), (2, "1"), (3, "1"), (2, "2")):
            output = f"{ranks} ranks of {workers}"
            run, printed = self.simulate_on(ranks, file, output, "--workers", workers)
            self.assertEqual(run.pop("ranks", 1), ranks)
            self.assertEqual(run["workers"], ranks * int(workers))
            self.assertEqual(result_of(run), result_of(first), output)
            self.assertEqual(metrics(self.folder / output), metrics(self.folder / "alone"), output)
            self.assertEqual(sha256_of(self.folder / output / "model.safetensors"), first["model_sha256"], output)
            self.assertEqual(len(printed), run["rounds"] + 1, "rank 0 alone prints")

    def test_tiny_is_the_same_for_any_ranks(self):
        self.assert_same_for_any_ranks(TINY)

    def test_devices_codec_and_server_optimizer_are_the_same_for_any_ranks(self):
        self.assert_same_for_any_ranks(self.write("everything.json", EVERYTHING))

    def test_a_preset_with_a_poisson_cohort_is_the_same_for_any_ranks(self):
        self.assert_same_for_any_ranks(self.write("preset.json", PRESET))

    def test_a_deadline_is_the_same_for_any_ranks(self):
        document = json.loads(json.dumps(EVERYTHING))
        document["round"] = {"cohort": 8, "deadline_s": 0.4}
        self.assert_same_for_any_ranks(self.write("deadline.json", document))
        self.assertIn("late", {outcome for one in metrics(self.folder / "alone") for outcome in one["outcomes"]})

    def test_a_promise_and_secure_aggregation_are_the_same_for_any_ranks(self):
        document = experiment(rounds=4, secure_aggregation={}, sampler={"name": "cyclic", "separation": 2},
                              round={"cohort": 8, "weighting": "uniform"})
        document["privacy"] = {"mechanism": {"name": "distributed_skellam", "clip_norm": 0.5}, "noise_multiplier": 1.0, "delta": 1e-5,
                               "randomness": "seeded", "accountant": {"name": "rdp"}, "adjacency": "replace_one"}
        self.assert_same_for_any_ranks(self.write("private.json", document))

    def test_a_rank_has_its_share_of_the_cores(self):
        run, _ = self.simulate_on(2, TINY, "shared")
        self.assertEqual(run["workers"], 2 * max(1, len(os.sched_getaffinity(0)) // 2))

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "one CPU has nothing to choose")
    def test_ranks_of_one_machine_pin_to_different_cpus(self):
        mpirun = self.start_on(2, "simulate", TINY, "--set", "rounds=100000", "--output", "pinned", "--json", "--workers", "1", "--pin", "on")
        wait_for_round(mpirun, 2)
        cpus = [support.pinned_cpus(rank_of(mpirun, rank)) for rank in (0, 1)]
        mpirun.send_signal(signal.SIGTERM)
        self.finish(mpirun)
        self.assertEqual([len(of_rank) for of_rank in cpus], [1, 1])
        self.assertNotEqual(cpus[0], cpus[1])
        result = self.on(2, "simulate", TINY, "--output", "many", "--workers", str(len(os.sched_getaffinity(0))), "--pin", "on", code=2)
        self.assert_said(result, f"--pin on: got {2 * len(os.sched_getaffinity(0))} workers on this machine")


@needs_mpi
class Ends(MpiTest):
    """Long enough that it is still going on when something happens to it."""

    ROUNDS = 400

    def setUp(self):
        super().setUp()
        self.file = self.write("quick.json", experiment(rounds=self.ROUNDS))

    def assert_resumes(self, folder, ranks):
        """As if nothing had happened."""
        expected = self.simulate(self.file, "undisturbed")
        if ranks > 1:
            self.on(ranks, "resume", folder, "--json")
        else:
            self.fl("resume", folder, "--json")
        run = read_json(self.folder / folder / "run.json")
        self.assertEqual((run["status"], run["model_sha256"]), ("finished", expected["model_sha256"]))
        self.assertEqual(metrics(self.folder / folder), metrics(self.folder / "undisturbed"))

    def killed(self, rank, folder):
        mpirun = self.start_on(3, "simulate", self.file, "--output", folder, "--json", "--workers", "1")
        wait_for_round(mpirun, 5)
        os.kill(rank_of(mpirun, rank), signal.SIGKILL)
        result = self.finish(mpirun)
        self.assertEqual(result.code, 128 + signal.SIGKILL, result.err)
        self.assertRegex(result.err, rf"rank {rank} .*on signal 9")
        return result

    def test_a_rank_that_is_killed_is_named_and_the_run_goes_on_from_its_last_round(self):
        result = self.killed(1, "run")
        self.assertNotIn("terminate called", result.err)
        self.assert_resumes("run", 2)

    def test_rank_zero_may_be_killed_and_the_run_goes_on_without_mpirun(self):
        self.killed(0, "run")
        self.assert_resumes("run", 1)

    def test_a_rank_that_is_stopped_interrupts_the_run(self):
        mpirun = self.start_on(2, "simulate", self.file, "--output", "run", "--json", "--workers", "1")
        wait_for_round(mpirun, 5)
        os.kill(rank_of(mpirun, 1), signal.SIGTERM)
        result = self.finish(mpirun)
        self.assertEqual(result.code, 130, result.err)
        self.assert_said(result, "interrupted after round", "fl resume run")
        self.assertEqual(read_json(self.folder / "run" / "run.json")["status"], "interrupted")
        self.assert_resumes("run", 3)

    def test_mpirun_passes_an_interrupt_on(self):
        # mpirun reads nothing any more, and after so many seconds asks ranks to stop and again after so many kills them: rounds must not be so
        # short that rank 0 cannot print them all in the meantime.
        document = experiment(rounds=40)
        document["trainer"]["epochs"] = 600
        self.write("quick.json", document)
        mpirun = self.start_on(2, "simulate", self.file, "--output", "run", "--json", "--workers", "1", OMPI_MCA_odls_base_sigkill_timeout="3")
        wait_for_round(mpirun, 2)
        mpirun.send_signal(signal.SIGINT)
        result = self.finish(mpirun)
        self.assertNotEqual(result.code, 0)
        self.assertEqual(read_json(self.folder / "run" / "run.json")["status"], "interrupted")
        self.assert_resumes("run", 2)

    def test_errors_are_said_once_with_their_exit_code(self):
        result = self.on(3, "simulate", "nowhere.json", code=2)
        self.assert_said(result, "nowhere.json")
        result = self.on(2, "simulate", self.file, "--set", "round.cohort=21", "--output", "run", code=2)
        self.assert_said(result, "round.cohort: got 21")
        result = self.on(2, "simulate", self.file, "--set", "trainer.learning_rate=1e6", "--output", "run", code=5)
        self.assert_said(result, "abandoned rounds in a row", "learning_rate")

    def test_only_runs_work_together(self):
        result = self.finish(self.start_on(2, "doctor"))
        self.assertEqual(result.code, 2)
        self.assertIn("fl: doctor: several copies of fl were started", result.err)


class WithoutMpi(support.CliTest):
    def test_copies_that_know_nothing_of_each_other_are_refused(self):
        result = self.fl("doctor", env=dict(os.environ, OMPI_COMM_WORLD_SIZE="2"), code=2)
        self.assert_one_error_line(result, "several copies of fl were started", "start one copy")

    @unittest.skipIf(MPIRUN, "fl was built with MPI")
    def test_a_run_is_refused_and_no_folder_is_made(self):
        result = self.fl("simulate", TINY, env=dict(os.environ, OMPI_COMM_WORLD_SIZE="2"), code=2)
        self.assert_one_error_line(result, "built without MPI", "libopenmpi-dev")
        self.assertFalse((self.folder / "runs").exists())


if __name__ == "__main__":
    support.main()
