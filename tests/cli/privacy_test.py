"""`fl privacy`: what noise costs, what a run has spent, whether its ledger can be trusted, and whether its promise stands an attack."""

import json
import shutil
import signal
import sqlite3

import support
from support import experiment, read_json

CONFIG, OUT_OF_BAND = 2, 6


def private_experiment(**changes):
    """20 clients, each in a round with a chance of 1/4."""
    document = experiment(rounds=6, sampler={"name": "poisson"}, round={"cohort": 5, "weighting": "uniform"},
                          privacy={"mechanism": {"name": "central_gaussian", "clip_norm": 0.5}, "noise_multiplier": 1.2, "delta": 1e-5,
                                   "sampling": "poisson"})
    document.update(changes)
    return document


class PrivacyTest(support.CliTest):
    def assert_refused(self, arguments, *parts, code=CONFIG):
        with self.subTest(" ".join(map(str, arguments))):
            before = sorted(self.folder.rglob("*"))
            result = self.fl("privacy", *arguments, code=code)
            self.assertEqual(result.out, "")
            self.assert_one_error_line(result, *parts)
            self.assertEqual(sorted(self.folder.rglob("*")), before, "nothing is left behind")


class Budget(PrivacyTest):
    def epsilon(self, *arguments):
        return self.fl("privacy", "epsilon", *arguments, "--json").objects()[0]

    def calibrate(self, *arguments):
        return self.fl("privacy", "calibrate", *arguments, "--json").objects()[0]

    def test_epsilon_is_the_accountants(self):
        # The exact Gaussian mechanism (Balle, Wang 2018): sigma 1, delta 1e-5.
        one = self.epsilon("--noise-multiplier", "1", "--rounds", "1", "--delta", "1e-5")
        self.assertAlmostEqual(one["epsilon"], 4.3771781, delta=1e-4)
        self.assertGreaterEqual(one["epsilon"], 4.3771780)
        self.assertEqual({key: one[key] for key in ("delta", "unit", "adjacency", "sampling", "sampling_rate", "accountant", "noise_multiplier", "rounds")},
                         {"delta": 1e-5, "unit": "record", "adjacency": "add_or_remove_one", "sampling": "none", "sampling_rate": 1, "accountant": "pld",
                          "noise_multiplier": 1, "rounds": 1})
        # Opacus, opacus/tests/accountants_test.py, test_rdp_accountant: 7.32911.
        rdp = self.epsilon("--sampling", "0.04", "--noise-multiplier", "1.5", "--rounds", "2250", "--delta", "1e-5", "--accountant", "rdp")
        self.assertAlmostEqual(rdp["epsilon"], 7.32911, delta=1e-3)
        pld = self.epsilon("--sampling", "0.04", "--noise-multiplier", "1.5", "--rounds", "2250", "--delta", "1e-5")
        self.assertLess(pld["epsilon"], rdp["epsilon"])
        replaced = self.epsilon("--sampling", "0.04", "--noise-multiplier", "1.5", "--rounds", "2250", "--delta", "1e-5", "--adjacency", "replace_one")
        self.assertGreater(replaced["epsilon"], pld["epsilon"])
        for accountant in ("gaussian", "zcdp"):
            other = self.epsilon("--noise-multiplier", "1", "--rounds", "1", "--delta", "1e-5", "--accountant", accountant)
            self.assertGreaterEqual(other["epsilon"], 4.3771780)

    def test_the_text_says_everything_and_rounds_up(self):
        arguments = ("--noise-multiplier", "1", "--rounds", "1", "--delta", "1e-5", "--unit", "client")
        lines = self.fl("privacy", "epsilon", *arguments).out.splitlines()
        said = dict(line.split(maxsplit=1) for line in lines if not line.startswith("noise"))
        self.assertEqual(lines[0].split(), ["noise", "multiplier", "1"])
        exact = self.epsilon(*arguments)["epsilon"]
        self.assertGreaterEqual(float(said["epsilon"]), exact)
        self.assertAlmostEqual(float(said["epsilon"]), exact, delta=1e-4)
        self.assertRegex(said["statement"], r"^epsilon 4\.37[89] at delta 1e-05 for one client \(add_or_remove_one, no amplification by sampling, accountant pld")

    def test_no_noise_costs_infinitely(self):
        arguments = ("--noise-multiplier", "0", "--rounds", "1", "--delta", "1e-5")
        self.assertIsNone(self.epsilon(*arguments)["epsilon"])
        self.assertIn("epsilon infinite", self.fl("privacy", "epsilon", *arguments).out)

    def test_calibrates_and_never_too_little(self):
        arguments = ("--epsilon", "8", "--sampling", "0.05", "--rounds", "300", "--delta", "1e-6")
        found = self.calibrate(*arguments)
        self.assertEqual(found["target_epsilon"], 8)
        self.assertLessEqual(found["epsilon"], 8)
        again = self.epsilon("--noise-multiplier", repr(found["noise_multiplier"]), *arguments[2:])
        self.assertEqual(again["epsilon"], found["epsilon"])
        less = self.epsilon("--noise-multiplier", repr(found["noise_multiplier"] * 0.998), *arguments[2:])
        self.assertGreater(less["epsilon"], 8)
        shown = self.fl("privacy", "calibrate", *arguments).out.splitlines()
        multiplier = shown[0].split()[-1]
        self.assertGreaterEqual(float(multiplier), found["noise_multiplier"])
        self.assertAlmostEqual(float(multiplier), found["noise_multiplier"], delta=1e-3)
        self.assertLessEqual(self.epsilon("--noise-multiplier", multiplier, *arguments[2:])["epsilon"], 8)

    def test_bad_numbers(self):
        good = ["--noise-multiplier", "1", "--rounds", "10", "--delta", "1e-5"]
        for change, parts in (
            (["--sampling", "0"], ["--sampling: got 0", "above 0 and at most 1"]),
            (["--sampling", "1.5"], ["--sampling: got 1.5"]),
            (["--sampling", "nan"], ["--sampling"]),
            (["--sampling", "often"], ["privacy epsilon", "--sampling"]),
            (["--adjacency", "both"], ["privacy epsilon", "--adjacency", "replace_one"]),
            (["--accountant", "pdl"], ["--accountant", "did you mean 'pld'?"]),
            (["--accountant", "zcdp", "--sampling", "0.5"], ["accountant", "zcdp", "pld"]),
            (["--unit", "household"], ["--unit"]),
            (["--wrokers", "2"], ["there is no option '--wrokers'"]),
        ):
            self.assert_refused(["epsilon", *good, *change], *parts)
        for arguments, parts in (
            (["--noise-multiplier", "-1", "--rounds", "10", "--delta", "1e-5"], ["--noise-multiplier: got -1"]),
            (["--noise-multiplier", "1", "--rounds", "0", "--delta", "1e-5"], ["--rounds: got 0", "from 1"]),
            (["--noise-multiplier", "1", "--rounds", "10", "--delta", "1"], ["--delta: got 1"]),
            (["--noise-multiplier", "1", "--rounds", "10"], ["privacy epsilon: --delta is required"]),
        ):
            self.assert_refused(["epsilon", *arguments], *parts)
        self.assert_refused(["calibrate", "--epsilon", "0", "--rounds", "10", "--delta", "1e-5"], "--epsilon: got 0")
        self.assert_refused(["calibrate", "--epsilon", "1e-9", "--rounds", "10000000", "--delta", "1e-12", "--accountant", "gaussian"], "noise")
        self.assert_refused([], "privacy: expected a command", "epsilon, calibrate, ledger, audit")
        self.assert_refused(["epsilom"], "privacy: there is no command 'epsilom'", "did you mean 'epsilon'?")


class Ledger(PrivacyTest):
    def run_private(self, folder="run", **changes):
        return self.simulate(self.write("private.json", private_experiment(**changes)), folder)

    def assert_untrusted(self, folder, *parts):
        """The ledger is refused, and so is going on."""
        self.assert_refused(["ledger", folder], f"the privacy ledger of {folder} cannot be trusted", *parts)
        self.assert_refused(["ledger", folder, "--json"], *parts)
        document = read_json(self.folder / folder / "experiment.json")
        document["rounds"] += 2
        self.write(f"{folder}/experiment.json", document)
        self.assert_one_error_line(self.fl("resume", folder, code=CONFIG), "cannot be trusted", *parts)

    def change_journal(self, folder, *statements):
        with sqlite3.connect(self.folder / folder / "journal.db") as journal:
            for statement in statements:
                journal.execute(*statement)
        journal.close()

    def test_lists_every_charge(self):
        run = self.run_private()
        *charges, last = self.fl("privacy", "ledger", "run", "--json").objects()
        self.assertEqual([charge["round"] for charge in charges], [1, 2, 3, 4, 5, 6])
        self.assertEqual([charge["number"] for charge in charges], [1, 2, 3, 4, 5, 6])
        self.assertEqual(charges[-1]["epsilon"], run["privacy"]["epsilon"])
        self.assertEqual(sorted(charge["epsilon"] for charge in charges), [charge["epsilon"] for charge in charges])
        self.assertEqual(last, {"verified": True, "charges": 6, "released_rounds": 6})
        # The ledger and the command say the same of the same noise.
        said = self.fl("privacy", "epsilon", "--sampling", "0.25", "--noise-multiplier", "1.2", "--rounds", "6", "--delta", "1e-5", "--json").objects()[0]
        self.assertEqual(said["epsilon"], charges[-1]["epsilon"])
        head, _, *lines = self.fl("privacy", "ledger", "run").out.splitlines()
        self.assertIn("epsilon after it", head)
        self.assertEqual(len(lines), 6 + 2)
        for charge, line in zip(charges, lines):
            number, round_, epsilon, prefix = line.split()
            self.assertEqual((int(number), int(round_)), (charge["number"], charge["round"]))
            self.assertGreaterEqual(float(epsilon), charge["epsilon"])
            self.assertTrue(charge["hash"].startswith(prefix))
        self.assertRegex(lines[-2], r"^spent +epsilon .* at delta 1e-05 for one client \(add_or_remove_one, poisson sampling 0.25, accountant pld")
        self.assertRegex(lines[-1], r"^verified +6 charges for 6 released rounds")

    def test_reads_beside_a_run_that_goes_on(self):
        file = self.write("private.json", private_experiment(rounds=100000, privacy={
            "mechanism": {"name": "central_gaussian", "clip_norm": 0.5}, "noise_multiplier": 30, "delta": 1e-5, "sampling": "poisson",
            "accountant": {"name": "rdp"}}))
        process = self.start("simulate", file, "--output", "run", "--json")
        for _ in range(3):
            process.stdout.readline()
        for _ in range(5):
            last = self.fl("privacy", "ledger", "run", "--json").objects()[-1]
            self.assertTrue(last["verified"])
            self.assertGreaterEqual(last["charges"], 3)
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.finish(process).code, 130)

    def test_changed_entries_are_found(self):
        self.run_private()
        for name, statement, why in (
            ("less", ["UPDATE ledger SET charge = replace(charge, '\"round\":2', '\"round\":1') WHERE number = 2"], "charge 2 was changed"),
            ("gap", ["DELETE FROM ledger WHERE number = 3"], "charge 3 is missing"),
            ("short", ["DELETE FROM ledger WHERE number > 4"], "round 6 was released, but only round 4 was charged"),
            ("empty", ["DELETE FROM ledger"], "6"),
        ):
            with self.subTest(name):
                shutil.copytree(self.folder / "run", self.folder / name)
                self.change_journal(name, statement)
                self.assert_untrusted(name, why)

    def test_a_journal_that_was_rolled_back_is_found(self):
        self.run_private()
        shutil.copytree(self.folder / "run", self.folder / "older")
        document = read_json(self.folder / "run/experiment.json")
        document["rounds"] = 9
        self.write("run/experiment.json", document)
        self.fl("resume", "run", "--json")
        self.assertEqual(self.fl("privacy", "ledger", "run", "--json").objects()[-1]["charges"], 9)
        for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
            (self.folder / "run" / name).unlink(missing_ok=True)
            if (self.folder / "older" / name).exists():
                shutil.copy(self.folder / "older" / name, self.folder / "run" / name)
        self.assert_untrusted("run", "ledger.head knows 9 charges, the journal holds 6", "an older copy")

    def test_what_is_no_run_or_makes_no_promise(self):
        self.assert_refused(["ledger", "gone"], "gone: not a run folder")
        self.assert_refused(["ledger"], "privacy ledger: DIR is required")
        self.simulate(self.write("quick.json", experiment(rounds=2)), "open")
        self.assert_refused(["ledger", "open"], "open: this run makes no promise of differential privacy")


class Audit(PrivacyTest):
    def audit(self, *arguments, code=0):
        return self.fl("privacy", "audit", *arguments, "--json", code=code).objects()[0]

    def test_says_what_is_claimed_and_what_was_shown(self):
        file = self.write("private.json", private_experiment(rounds=3))
        before = sorted(self.folder.rglob("*"))
        result = self.audit(file, "--trials", "100", "--seed", "1")
        self.assertTrue(result["holds"])
        self.assertLessEqual(result["lower_bound"], result["claim"]["epsilon"])
        self.assertEqual((result["trials"], result["evaluated"], result["confidence"]), (100, 50, 0.95))
        self.assertEqual((result["claim"]["rounds"], result["claim"]["sampling_rate"], result["claim"]["unit"]), (3, 0.25, "client"))
        self.assertEqual(self.audit(file, "--trials", "100", "--seed", "1", "--workers", "1"), result)
        text = self.fl("privacy", "audit", file, "--trials", "100", "--seed", "1").out
        self.assertRegex(text, r"(?m)^claim +epsilon .* for one client .* after 3 rounds$")
        self.assertRegex(text, r"(?m)^attack +epsilon is at least .* \(95 % confidence\)$")
        self.assertRegex(text, r"(?m)^trials +100 trials with the canary and as many without: seen falsely in \d+ of 50, missed in \d+ of 50$")
        self.assertRegex(text, r"(?m)^verdict +not refuted")
        self.assertEqual(sorted(self.folder.rglob("*")), before, "an audit leaves nothing behind")

    def test_settings_and_the_noise_of_a_run(self):
        file = self.write("private.json", private_experiment(rounds=3))
        more = self.audit(file, "--set", "privacy.noise_multiplier=12", "--trials", "20")
        self.assertEqual(more["claim"]["noise_multiplier"], 12)
        run = self.simulate(file, "run")
        before = sorted(self.folder.rglob("*"))
        audited = self.audit("run", "--trials", "20")
        self.assertEqual(audited["claim"]["epsilon"], run["privacy"]["epsilon"])
        self.assertEqual(sorted(self.folder.rglob("*")), before)

    def test_refusals(self):
        self.assert_refused(["audit", "gone.json"], "gone.json: no such file")
        self.assert_refused(["audit", self.folder], "not a run folder")
        self.assert_refused(["audit", self.write("open.json", experiment(rounds=2))], "open.json", "privacy: missing")
        file = self.write("private.json", private_experiment())
        self.assert_refused(["audit", file, "--trials", "3"], "--trials", "20")
        self.assert_refused(["audit", file, "--seed", "-1"], "--seed: got -1, expected an integer from 0")
        self.assert_refused(["audit", file, "--set", "privacy.noise_multiplier=0"], "private.json", "privacy.noise_multiplier: got 0")
        self.assert_refused(["audit", file, "--set", "privacy.sampling_rat=0.5"], "private.json", "did you mean 'sampling_rate'?")
        examples = private_experiment(sampler={"name": "uniform"}, trainer={"name": "dp_sgd", "steps": 2, "batch_size": 5})
        examples["privacy"] = {"mechanism": {"name": "dp_sgd", "sampling_rate": 0.5}, "unit": "example", "noise_multiplier": 1, "delta": 1e-5}
        self.assert_refused(["audit", self.write("examples.json", examples)], "examples.json", "got \"dp_sgd\"", "protects whole clients")
        self.simulate(file, "run")
        self.assert_refused(["audit", "run", "--set", "rounds=3"], "--set rounds=3", "name an experiment's file")

    def test_ctrl_c_ends_it_with_one_line(self):
        process = self.start("privacy", "audit", self.write("private.json", private_experiment(rounds=50)), "--trials", "1000000")
        for line in process.stderr:
            if b"auditing the claim" in line:
                break
        process.send_signal(signal.SIGINT)
        result = self.finish(process)
        self.assertEqual(result.code, 130)
        self.assertIn("the audit was interrupted", result.last_error())


if __name__ == "__main__":
    support.main()
