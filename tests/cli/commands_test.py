"""What each command of fl prints and writes when all is well."""

import json
import os
import re
import shutil
import signal
import sqlite3
import unittest

import support
from support import EXPERIMENTS, TINY, experiment, read_json, sha256_of

CPUS = sorted(os.sched_getaffinity(0))
COMMANDS = ("simulate", "resume", "up", "replay", "sweep", "plan", "doctor", "report", "clients", "config")
# What benchmarks and scripts read from the last line of --json.
SUMMARY = {"status", "rounds", "accuracy", "loss", "model_sha256", "seconds", "seconds_rounds", "cpu_seconds_rounds", "train_samples_per_s", "client_rounds_per_s",
           "peak_rss_bytes", "bytes_up", "bytes_down"}
ROUND = {"round", "model_version", "abandoned", "outcomes", "bytes_up", "bytes_down", "examples", "steps", "training_loss",
         "update_norm", "virtual_seconds", "wall_seconds", "wall_seconds_evaluation", "wall_seconds_evaluation_alone"}
# They look like addresses, but nobody fetches them.
NAMESPACES = {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"}


class Help(support.CliTest):
    def test_every_command_has_help(self):
        overview = self.fl("--help").out
        for command in COMMANDS:
            with self.subTest(command):
                self.assertRegex(overview, rf"(?m)^  {command} ")
                result = self.fl(command, "--help")
                self.assertIn(f"Usage: fl {command} ", result.out)
                self.assertEqual(result.err, "")

    def test_version(self):
        self.assertRegex(self.fl("--version").out, r"^\d+\.\d+\.\d+\n$")


class Simulate(support.CliTest):
    def test_json_is_one_object_a_round_and_a_summary(self):
        result = self.fl("simulate", TINY, "--output", "run", "--json", "--set", "evaluation.every=2")
        *rounds, summary = result.objects()
        self.assertEqual(result.err, "", "nothing but JSON for a program that reads it")
        self.assertEqual([one["round"] for one in rounds], [1, 2, 3, 4, 5])
        self.assertEqual([one["round"] for one in rounds if "accuracy" in one], [2, 4, 5])
        for one in rounds:
            self.assertLessEqual(ROUND, one.keys())
            self.assertEqual(one["outcomes"], {"accepted": 5})
        # The file tells in addition who did what.
        lines = [json.loads(line) for line in (self.folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        cohorts = [line.pop("cohort") for line in lines]
        self.assertEqual(lines, rounds)
        self.assertEqual([(len(set(cohort["clients"])), cohort["outcomes"]) for cohort in cohorts], [(5, [0] * 5)] * 5)

        self.assertLessEqual(SUMMARY, summary.keys())
        self.assertEqual(summary, read_json(self.folder / "run" / "run.json"))
        self.assertEqual((summary["status"], summary["rounds"]), ("finished", 5))
        self.assertEqual((summary["accuracy"], summary["loss"]), (rounds[-1]["accuracy"], rounds[-1]["loss"]))
        for key in ("bytes_up", "bytes_down"):
            self.assertEqual(summary[key], sum(one[key] for one in rounds))
        examples = sum(one["examples"] for one in rounds)
        training_s = sum(one["wall_seconds"] for one in rounds)
        self.assertAlmostEqual(summary["train_samples_per_s"] * training_s / examples, 1, 6)
        self.assertAlmostEqual(summary["client_rounds_per_s"] * training_s / 25, 1, 6)
        self.assertAlmostEqual(summary["seconds"], training_s + sum(one["wall_seconds_evaluation_alone"] for one in rounds), 6)
        self.assertGreater(summary["peak_rss_bytes"], 1 << 20)
        self.assertEqual(summary["model_sha256"], sha256_of(self.folder / "run" / "model.safetensors"))

    def test_a_run_folder_holds_everything(self):
        result = self.fl("simulate", TINY, "--output", "run")
        names = {path.name for path in (self.folder / "run").iterdir()}
        self.assertLessEqual({"experiment.json", "journal.db", "blobs", "metrics.jsonl", "model.safetensors", "partition.json", "run.json",
                              "report.html"}, names)
        self.assertEqual([name for name in names if name.endswith(".partial")], [])
        run = read_json(self.folder / "run" / "run.json")
        for part in (run["model_sha256"], "run/report.html", "accuracy", "traffic"):
            self.assertIn(part, result.out)
        partition = read_json(self.folder / "run" / "partition.json")
        self.assertEqual(partition["clients"], 20)
        self.assertEqual(sum(map(sum, partition["histogram"])), 2000, "every example belongs to one client")

    def test_the_default_folder_is_named_after_the_experiment(self):
        for expected in ("runs/tiny", "runs/tiny-2", "runs/tiny-3"):
            self.fl("simulate", TINY, "--set", "rounds=1")
            self.assertTrue((self.folder / expected / "run.json").exists(), expected)
        self.fl("simulate", "--set", "name=other", TINY, "--set", "rounds=1")
        self.assertTrue((self.folder / "runs" / "other" / "run.json").exists())

    def test_settings_reach_the_experiment(self):
        self.fl("simulate", "--set", "rounds=2", "--set", "trainer.learning_rate=0.25", TINY, "--set", "model.stages.0.conv.out=3",
                "--set", "observers=[{\"name\": \"early_stop\", \"target\": 0.0}]", "--output", "run")
        resolved = read_json(self.folder / "run" / "experiment.json")
        self.assertEqual((resolved["rounds"], resolved["trainer"]["learning_rate"]), (2, 0.25))
        self.assertEqual(resolved["model"]["stages"][0]["conv"]["out"], 3)
        run = read_json(self.folder / "run" / "run.json")
        self.assertEqual((run["status"], run["rounds"]), ("stopped_early", 1), "any accuracy reaches a target of 0")

    def test_check_compares_with_the_expected_band(self):
        for low, code, word in ((0.0, 0, "reached"), (0.999, 6, "MISSED")):
            file = self.write("expect.json", experiment(rounds=1, expect={"metric": "accuracy", "low": low, "high": 1.0}))
            self.assertIn(word, self.fl("simulate", file, "--check", "--output", f"checked-{low}", code=code).out)
            self.fl("simulate", file, "--output", f"unchecked-{low}")


@unittest.skipIf(len(CPUS) < 2, "one CPU has nothing to choose")
class Pinning(support.CliTest):
    def pinned(self, workers, *arguments):
        """Where the workers are, once rounds have begun."""
        process = self.start("simulate", TINY, "--set", "rounds=100000", "--output", "-".join(["run", str(workers), *arguments]), "--json", "--workers", str(workers), *arguments)
        process.stdout.readline()
        cpus = support.pinned_cpus(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=support.HANGS_AFTER_S)
        return cpus

    def test_each_worker_has_a_cpu_of_its_own_or_none(self):
        on = self.pinned(2, "--pin", "on")
        self.assertEqual(len(set(on)), 2)
        self.assertLessEqual(set(on), set(CPUS))
        self.assertEqual(self.pinned(2), [])
        self.assertEqual(self.pinned(len(CPUS), "--pin", "auto"), CPUS, "a worker for every CPU")
        self.assertEqual(self.pinned(1, "--pin", "auto"), [], "another run may want to be here")
        self.assertEqual(self.pinned(len(CPUS) + 1, "--pin", "auto"), [])

    def test_asked_for_where_it_cannot_be_is_refused(self):
        result = self.fl("simulate", TINY, "--pin", "on", "--workers", str(len(CPUS) + 1), code=2)
        self.assert_one_error_line(result, f"--pin on: got {len(CPUS) + 1} workers on this machine", f"this process may use {len(CPUS)}")
        self.assert_one_error_line(self.fl("simulate", TINY, "--pin", "maybe", code=2), "--pin: maybe not in {auto,off,on}")
        self.assertEqual(list(self.folder.iterdir()), [])


class Sweep(support.CliTest):
    GRID = ("--grid", "seed=1,2", "--grid", "trainer.epochs=1,2")

    def test_makes_the_runs_of_simulate_and_a_table(self):
        result = self.fl("sweep", TINY, "--set", "rounds=2", *self.GRID)
        runs = self.folder / "runs" / "tiny-sweep"
        head, rule, *rows = result.out.splitlines()[:6]
        self.assertEqual(head.split(), ["seed", "trainer.epochs", "accuracy", "loss", "rounds", "seconds", "model"])
        self.assertRegex(rule, r"^[- ]+$")
        self.assertEqual([tuple(row.split()[:2]) for row in rows], [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")])
        hashes = []
        for row in rows:
            seed, epochs = row.split()[:2]
            run = read_json(runs / f"seed={seed},trainer.epochs={epochs}" / "run.json")
            hashes.append(run["model_sha256"])
            self.assertTrue(run["model_sha256"].startswith(row.split()[-1]))
        self.assertEqual(len(set(hashes)), 4)
        self.assertTrue((runs / "comparison.html").exists())
        alone = self.simulate(TINY, "alone", "--set", "rounds=2", "--set", "seed=2", "--set", "trainer.epochs=2")
        self.assertEqual(alone["model_sha256"], hashes[-1])

    def test_a_second_call_skips_what_is_finished_and_makes_what_is_missing(self):
        sweep = ("sweep", TINY, "--set", "rounds=2", *self.GRID, "--output", "runs", "--json")
        first = self.fl(*sweep).objects()
        self.assertEqual([one["folder"] for one in first], [f"runs/seed={s},trainer.epochs={e}" for s in (1, 2) for e in (1, 2)])
        self.assertEqual(first[1]["settings"], {"seed": "1", "trainer.epochs": "2"})
        times = {folder: (self.folder / folder / "run.json").stat().st_mtime_ns for folder in (one["folder"] for one in first)}
        shutil.rmtree(self.folder / first[2]["folder"])
        second = self.fl(*sweep).objects()
        self.assertEqual([one["model_sha256"] for one in second], [one["model_sha256"] for one in first])
        for folder, before in times.items():
            kept = (self.folder / folder / "run.json").stat().st_mtime_ns == before
            self.assertEqual(kept, folder != first[2]["folder"], folder)


class Plan(support.CliTest):
    def test_agrees_with_the_run(self):
        plan = json.loads(self.fl("plan", TINY, "--workers", "1", "--json").out)
        run = self.simulate(TINY, "run", "--workers", "1")
        self.assertEqual(plan["parameters"], run["parameters"])
        self.assertEqual((plan["clients"], plan["workers"], plan["device"]), (20, 1, "cpu"))
        # 5 rounds; a plan leaves out headers, which are small beside the weights but not beside 188 of them.
        for key in ("bytes_up", "bytes_down"):
            self.assertEqual(plan[f"{key}_per_round"], 5 * 4 * run["parameters"])
            self.assertLessEqual(5 * plan[f"{key}_per_round"], run[key])
            self.assertLess(run[key], 5 * plan[f"{key}_per_round"] + 25 * 256)
        # 2000 examples over 20 clients, 5 of them a round.
        self.assertAlmostEqual(plan["examples_per_round"], 500)
        self.assertEqual(plan["training_flops_per_example"], 3 * plan["forward_flops_per_example"])
        self.assertAlmostEqual(plan["training_flops"], 5 * 500 * plan["training_flops_per_example"])
        self.assertAlmostEqual(plan["seconds"], plan["training_seconds"] + plan["evaluation_seconds"])
        self.assertGreater(plan["training_examples_per_s_per_worker"], 0)
        self.assertGreater(plan["memory_bytes"], run["peak_rss_bytes"] / 3)
        self.assertLess(plan["memory_bytes"], run["peak_rss_bytes"] * 3)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["run"], "a plan writes nothing")

    def test_for_people(self):
        out = self.fl("plan", TINY).out
        for part in ("parameters", "188", "device", "traffic a round", "memory", "time"):
            self.assertIn(part, out)

    def test_half_the_traffic_with_16_bits(self):
        plans = [json.loads(self.fl("plan", TINY, "--json", "--set", f"codec.name={codec}").out) for codec in ("identity", "fp16")]
        self.assertEqual(plans[0]["bytes_up_per_round"], 2 * plans[1]["bytes_up_per_round"])
        self.assertEqual(plans[0]["bytes_down_per_round"], plans[1]["bytes_down_per_round"])


class Doctor(support.CliTest):
    def test_json_names_findings_and_fixes(self):
        process = self.start("doctor", "--json")
        result = self.finish(process)
        report = json.loads(result.out)
        self.assertEqual(report["healthy"], all(not one["fix"] for one in report["findings"]))
        self.assertEqual(result.code, 0 if report["healthy"] else 2)
        found = {one["what"]: one["found"] for one in report["findings"]}
        self.assertLessEqual({"Tributary", "LibTorch", "BLAS", "kernels", "cores", "memory", "disk"}, found.keys())
        self.assertEqual(found["Tributary"], self.fl("--version").out.strip())
        self.assertIn("GFLOP/s", found["BLAS"])


class Report(support.CliTest):
    def assert_stands_alone(self, path):
        page = path.read_text(encoding="utf-8")
        self.assertEqual((page[:15], page.rstrip()[-7:]), ("<!DOCTYPE html>", "</html>"))
        found = re.findall(r"(?i)https?://[^\s\"'<]*|<link|<iframe|@import|\bsrc=|url\((?!#)", page)
        self.assertEqual(set(found) - NAMESPACES, set(), "nothing is loaded from elsewhere")
        return page

    def test_one_run(self):
        run = self.simulate(TINY, "run")
        self.assert_stands_alone(self.folder / "run" / "report.html")
        (self.folder / "run" / "report.html").unlink()
        self.assertEqual(self.fl("report", "run").out, "run/report.html\n")
        page = self.assert_stands_alone(self.folder / "run" / "report.html")
        self.assertTrue(run["model_sha256"] in page)

    def test_two_runs_are_compared(self):
        for seed in (1, 2):
            self.simulate(TINY, f"run-{seed}", "--set", f"seed={seed}")
        self.assertEqual(self.fl("report", "run-1", "run-2").out, "comparison.html\n")
        page = self.assert_stands_alone(self.folder / "comparison.html")
        for name in ("run-1", "run-2"):
            self.assertTrue(name in page, name)
        self.assertEqual(self.fl("report", "run-1", "run-2", "--output", "both.html").out, "both.html\n")
        self.assertEqual((self.folder / "both.html").read_bytes(), (self.folder / "comparison.html").read_bytes())

    def test_what_a_user_wrote_is_escaped(self):
        file = self.write("evil.json", experiment(rounds=1, description="<script>alert('&')</script>"))
        self.simulate(file, "run")
        page = self.assert_stands_alone(self.folder / "run" / "report.html")
        self.assertEqual((page.count("<script>alert"), page.count("&lt;script&gt;alert") > 0), (0, True))


class Clients(support.CliTest):
    def test_rounds_are_those_of_the_metrics(self):
        file = self.write("quick.json", experiment(rounds=8, devices={"failure_probability": 0.3},
                                                   round={"cohort": 5, "deadline_s": 8, "minimum_updates": 1}))
        self.simulate(file, "run")
        expected = {}
        for line in (self.folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            for client, outcome in zip(one["cohort"]["clients"], one["cohort"]["outcomes"]):
                did = expected.setdefault(client, {"rounds": 0, "counted": 0, "last_counted_round": 0})
                did["rounds"] += 1
                if outcome == 0:
                    did["counted"] += 1
                    did["last_counted_round"] = one["round"]
        self.assertTrue(any(did["counted"] < did["rounds"] for did in expected.values()), "the experiment has failures")
        rows = self.fl("clients", "run", "--json").objects()
        self.assertEqual([row["id"] for row in rows], sorted(expected))
        for row in rows:
            self.assertEqual({key: row[key] for key in expected[row["id"]]}, expected[row["id"]], row["id"])
            self.assertEqual((row["identity"], row["first_seen"], row["sessions"]), (None, None, 0), "a simulation has no registry")

    def test_the_registry_is_shown_while_its_run_goes_on(self):
        self.simulate(TINY, "up/run")
        journal = sqlite3.connect(self.folder / "up" / "run" / "journal.db", isolation_level=None)
        self.addCleanup(journal.close)
        # Client 900 was listed and never here. 1 764 072 000 s after 1970 is 2025-11-25 12:00 UTC.
        journal.execute("""INSERT INTO clients VALUES(7, 'kitchen', 1764072000.5, 1764075660, 3, '{"examples": 60}')""")
        journal.execute("INSERT INTO clients VALUES(900, 'cellar', 0, 0, 0, '')")
        journal.execute("INSERT OR REPLACE INTO participation VALUES(1, 7, 2), (2, 7, 7), (3, 7, 2), (4, 7, 0), (5, 7, 0)")
        journal.execute("BEGIN IMMEDIATE")
        journal.execute("UPDATE clients SET sessions=99")
        for folder in ("up", "up/run"):
            lines = self.fl("clients", folder).out.splitlines()
            self.assertRegex(lines[0], r"^id +identity +first seen \(UTC\) +last seen \(UTC\) +sessions +asked +counted +not counted$")
            self.assertRegex("\n".join(lines), r"(?m)^7 +kitchen +2025-11-25 12:00 +2025-11-25 13:01 +3 +5 +2 +2 late, 1 not_finite$")
            self.assertRegex(lines[-1], r"^900 +cellar +- +- +0 +0 +0 *$")
        rows = {row["id"]: row for row in self.fl("clients", "up", "--json").objects()}
        self.assertEqual(rows[7], {"id": 7, "identity": "kitchen", "first_seen": 1764072000.5, "last_seen": 1764075660, "sessions": 3,
                                   "rounds": 5, "counted": 2, "last_counted_round": 5,
                                   "outcomes": {"accepted": 2, "late": 2, "not_finite": 1}, "profile": {"examples": 60}})
        self.assertEqual((rows[900]["first_seen"], rows[900]["profile"], rows[900]["outcomes"]), (None, None, {}))

    def test_a_folder_without_a_run_is_refused(self):
        for folder in ("nowhere", "."):
            result = self.fl("clients", folder, code=2)
            self.assert_one_error_line(result, "journal.db: no such file; expected the journal of a run")
        self.assertEqual(list(self.folder.iterdir()), [], "and nothing is created")


class Config(support.CliTest):
    def test_every_shipped_experiment_is_valid(self):
        files = sorted(EXPERIMENTS.glob("*.json"))
        self.assertGreaterEqual(len(files), 5)
        for file in files:
            with self.subTest(file.name):
                resolved = json.loads(self.fl("config", file).out)
                self.assertEqual(resolved["name"], file.stem)
                self.assertTrue(resolved["description"])

    def test_the_resolved_experiment_resolves_to_itself(self):
        first = self.fl("config", TINY, "--set", "trainer.epochs=7").out
        self.assertEqual(json.loads(first)["trainer"]["epochs"], 7)
        self.assertEqual(self.fl("config", self.write("resolved.json", first)).out, first)

    def test_the_schema_lists_every_key(self):
        schema = json.loads(self.fl("config", "--schema", "--json").out)
        resolved = json.loads(self.fl("config", TINY, "--set", "devices={}", "--set", "expect={}").out)
        text = self.fl("config", "--schema").out
        self.assertEqual(schema["experiment"].keys(), resolved.keys())
        for group in ("round", "evaluation", "devices", "expect"):
            self.assertEqual(schema["experiment"][group]["keys"].keys(), resolved[group].keys())
        for kind, components in schema["components"].items():
            for name, component in components.items():
                self.assertIn(f'  "{name}"  {component["summary"]}\n', text)
                for key, about in component["options"].items():
                    self.assertLessEqual({"type", "default", "meaning"}, about.keys(), f"{kind}.{name}.{key}")
                    self.assertIn(f"      {key}  (", text)
        for kind in ("data", "partition", "model", "trainer", "codec", "strategy", "sampler"):
            self.assertEqual(set(schema["components"][kind][resolved[kind]["name"]]["options"]) | {"name"}, resolved[kind].keys(), kind)


if __name__ == "__main__":
    support.main()
