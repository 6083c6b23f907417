"""A run that is refused before it begins leaves nothing behind, whichever program refuses it and however late."""

import os
import pathlib
import subprocess

import support
from support import experiment, read_json, sha256_of

CONFIG = 2
CLIENTS = 10

PRIVATE = {"mechanism": {"name": "central_gaussian", "clip_norm": 0.5}, "noise_multiplier": 1, "delta": 1e-5, "sampling": "poisson"}
POISSON = {"sampler": {"name": "poisson"}, "evaluation": {"every": 2}}
# What is wrong with an experiment, and how the error says so. Each comes from another place.
REFUSED = (
    ({"round": {"cohort": CLIENTS + 1}}, f"round.cohort: got {CLIENTS + 1}"),
    ({"round": {"cohort": 5, "weighting": "examples"}, "privacy": PRIVATE, **POISSON}, "round.weighting: got \"examples\""),
    ({"round": {"cohort": 5, "weighting": "uniform"}, "privacy": dict(PRIVATE, mechanism={"name": "central_gaussian", "adaptive": {}}), "secure_aggregation": {}, **POISSON},
     "privacy.mechanism.adaptive"),
    ({"round": {"cohort": 4, "minimum_updates": 3}, "secure_aggregation": {"adversary_rate": 0.5, "dropout_rate": 0.3}}, "adversary_rate + 2 * dropout_rate is 1.1"),
)


def refused(changes):
    document = experiment(rounds=2, partition={"name": "iid", "clients": CLIENTS})
    document.update(changes)
    return document


class Refusals(support.CliTest):
    def assert_leaves_nothing(self, command, *parts, **options):
        with self.subTest(" ".join(map(str, command))):
            before = sorted(self.folder.rglob("*"))
            result = self.fl(*command, code=CONFIG, **options)
            self.assert_one_error_line(result, *parts)
            self.assertEqual(sorted(self.folder.rglob("*")), before, "nothing is left behind")

    def test_simulate_and_sweep(self):
        for changes, part in REFUSED:
            file = self.write("bad.json", refused(changes))
            self.assert_leaves_nothing(["simulate", file], part)
            self.assert_leaves_nothing(["simulate", file, "--workers", "3", "--output", "a/b/c/"], part)
            self.assert_leaves_nothing(["sweep", file, "--grid", "seed=1,2"], part)

    def test_a_folder_that_was_there_stays(self):
        (self.folder / "mine").mkdir()
        for changes, part in REFUSED:
            self.assert_leaves_nothing(["simulate", self.write("bad.json", refused(changes)), "--output", "mine"], part)

    def test_a_run_that_has_begun_stays(self):
        run = self.simulate(self.write("good.json", refused({"round": {"cohort": 5}})), "run")
        document = read_json(self.folder / "run" / "experiment.json")
        document["round"]["cohort"] = 6
        self.write("run/experiment.json", document)
        self.assert_one_error_line(self.fl("resume", "run", code=CONFIG), "experiment.json was changed since this run began")
        self.assert_leaves_nothing(["simulate", "good.json", "--output", "run"], "already holds a run")
        document["round"]["cohort"] = 5
        self.write("run/experiment.json", document)
        self.fl("resume", "run")
        self.assertEqual(sha256_of(self.folder / "run" / "model.safetensors"), run["model_sha256"])

    def test_up(self):
        for changes, part in REFUSED:
            file = self.write("bad.json", refused(changes))
            self.assert_leaves_nothing(["up", file, "--clients", str(CLIENTS), "--output", "a/b"], part)

    def test_aggregator(self):
        self.fl("up", self.write("good.json", refused({"round": {"cohort": 2}})), "--clients", "2", "--output", "up", "--quiet")
        server = read_json(self.folder / "up" / "server.json")
        program = str(pathlib.Path(self.program).with_name("fl-aggregator"))
        for changes, part in REFUSED[1:]:  # it cannot know how many clients there will be
            server.update(experiment=refused(changes), folder="new/run")
            server["clients"].update(listed=[f"client-{i}" for i in range(CLIENTS)], at_start=CLIENTS)
            self.write("up/bad.json", server)
            with self.subTest(part):
                before = sorted(self.folder.rglob("*"))
                result = subprocess.run([program, self.folder / "up" / "bad.json"], cwd=self.folder, capture_output=True, text=True, check=False, timeout=support.HANGS_AFTER_S)
                self.assertEqual(result.returncode, CONFIG, result.stderr)
                self.assertIn(part, result.stderr.splitlines()[-1])
                self.assertNotIn("begins on", result.stderr)
                self.assertEqual(sorted(self.folder.rglob("*")), before, "nothing is left behind")

    def test_replay(self):
        good = {"round": {"cohort": 5, "weighting": "uniform"}, "privacy": dict(PRIVATE, randomness="seeded"), **POISSON}
        self.simulate(self.write("good.json", refused(good)), "run")
        document = read_json(self.folder / "run" / "experiment.json")
        document["round"]["weighting"] = "examples"
        self.write("run/experiment.json", document)
        scratch = self.folder / "tmp"
        scratch.mkdir()
        self.assert_leaves_nothing(["replay", "run"], "round.weighting: got \"examples\"", env=dict(os.environ, TMPDIR=str(scratch)))


if __name__ == "__main__":
    support.main()
