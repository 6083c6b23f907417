"""`fl replay`: a recorded run is run again and every model compared. (Deployed runs are replayed in up_test.py.)"""

import json
import shutil
import signal

import support
from support import experiment, read_json

# Over-selection, a deadline and devices that come late or leave: the record says who was accepted, and the replay follows it.
STRAGGLERS = {"rounds": 12, "round": {"cohort": 6, "over_selection": 1.5, "deadline_s": 0.4},
              "devices": {"examples_per_s": 200, "speed_spread": 0.7, "failure_probability": 0.2}}


class Replay(support.CliTest):
    def recorded(self, folder="run", **changes):
        return self.simulate(self.write("quick.json", experiment(**{"rounds": 12, **changes})), folder)

    def change_experiment(self, path, value, folder="run"):
        document = read_json(self.folder / folder / "experiment.json")
        place = document
        *parents, last = path
        for parent in parents:
            place = place[parent]
        place[last] = value
        self.write(f"{folder}/experiment.json", document)

    def test_agrees_in_words_and_in_json(self):
        run = self.recorded(**STRAGGLERS)
        self.assertIn("late", (self.folder / "run/metrics.jsonl").read_text(encoding="utf-8"), "the test needs stragglers")
        result = self.fl("replay", "run", "--workers", "2")
        self.assertEqual(result.out, f"replay agrees: 12 rounds, model {run['model_sha256']}\n")
        *rounds, last = self.fl("replay", "run", "--json").objects()
        self.assertEqual([one["round"] for one in rounds], list(range(1, 13)))
        self.assertEqual(rounds[-1]["model_sha256"], run["model_sha256"])
        self.assertEqual(last, {"agrees": True, "rounds": 12, "model_sha256": run["model_sha256"]})

    def test_names_the_first_round_that_differs(self):
        run = self.recorded()
        self.change_experiment(["trainer", "learning_rate"], 0.06)
        result = self.fl("replay", "run", "--json", code=6)
        last = result.objects()[-1]
        self.assertEqual((last["agrees"], last["round"], last["rounds"]), (False, 1, 12))
        self.assertNotIn(run["model_sha256"], (last["recorded"], last["replayed"]))
        self.assert_one_error_line(result, "replay differs: round 1 of 12", last["recorded"], last["replayed"], "other data than experiment.json says")

    def test_says_when_clients_trained_on_other_examples(self):
        self.recorded()
        self.change_experiment(["partition", "alpha"], 5.0)
        self.assert_one_error_line(self.fl("replay", "run", code=6), "the data and partition of experiment.json are not what the clients had")

    def test_an_interrupted_run_is_replayed_as_far_as_it_came(self):
        process = self.start("simulate", self.write("quick.json", experiment(rounds=100000)), "--output", "run", "--json")
        for line in process.stdout:
            if json.loads(line)["round"] >= 5:
                break
        self.assert_one_error_line(self.fl("replay", "run", code=2), "another process works on this run")
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.finish(process).code, 130)
        run = read_json(self.folder / "run/run.json")
        last = self.fl("replay", "run", "--json").objects()[-1]
        self.assertEqual(last, {"agrees": True, "rounds": run["rounds"], "model_sha256": run["model_sha256"]})

    def test_a_killed_run_is_replayed_from_a_journal_that_was_never_closed(self):
        process = self.start("simulate", self.write("quick.json", experiment(rounds=100000)), "--output", "run", "--json")
        for line in process.stdout:
            seen = json.loads(line)["round"]
            if seen >= 20:
                break
        process.kill()
        self.finish(process)
        self.assertGreater((self.folder / "run/journal.db-wal").stat().st_size, 0, "the newest rounds are in the write-ahead log")
        last = self.fl("replay", "run", "--json").objects()[-1]
        self.assertTrue(last["agrees"])
        self.assertGreaterEqual(last["rounds"], seen)
        self.assertGreater((self.folder / "run/journal.db-wal").stat().st_size, 0, "a replay leaves the folder alone")

    def test_refuses_what_is_no_run(self):
        self.assert_one_error_line(self.fl("replay", "gone", code=2), "gone: not a run folder")
        self.recorded()
        shutil.copytree(self.folder / "run", self.folder / "damaged")
        (self.folder / "damaged/journal.db").write_bytes(b"no journal")
        self.assert_one_error_line(self.fl("replay", "damaged", code=2), "journal.db")
        self.assert_one_error_line(self.fl("replay", code=2), "DIR")
        self.change_experiment(["partition", "clients"], 6)
        self.assert_one_error_line(self.fl("replay", "run", code=2), "took part in round", "has 6 clients")


if __name__ == "__main__":
    support.main()
