"""The same experiment gives the same model bits, whatever the number of workers, the machine's thread settings and the clock."""

import os

import support
from support import TINY, metrics, read_json, sha256_of

# A convolution with statistic slots and dropout, a server optimizer with state, 16-bit updates, and devices that come late
# or leave: whatever could depend on the order in which workers finish.
EVERYTHING = {
    "name": "everything",
    "seed": 11,
    "rounds": 6,
    "data": {"name": "synthetic", "examples": 1500, "test_examples": 300, "input": [1, 8, 8], "classes": 4},
    "partition": {"name": "quantity", "clients": 30, "sigma": 1.0},
    "model": {"name": "spec", "stages": [
        {"conv": {"out": 4, "kernel": 3, "padding": 1}}, {"batch_norm": {}}, {"relu": {}}, {"max_pool": {"kernel": 2}},
        {"flatten": {}}, {"dropout": {"probability": 0.25}}, {"linear": {"out": "classes"}}]},
    "trainer": {"name": "fedprox", "mu": 0.1, "epochs": 2, "batch_size": 8, "learning_rate": 0.05, "momentum": 0.5},
    "codec": {"name": "fp16"},
    "strategy": {"name": "fedopt", "optimizer": "yogi", "learning_rate": 0.03},
    "round": {"cohort": 8, "over_selection": 1.25, "deadline_s": 0.4},
    "evaluation": {"every": 2, "per_client_every": 3, "per_client_count": 10, "client_holdout": 0.2},
    "devices": {"examples_per_s": 500, "speed_spread": 0.7, "failure_probability": 0.1},
}
# A preset, a cohort that varies, and a rate that changes from round to round.
PRESET = {
    "name": "preset",
    "seed": 5,
    "rounds": 4,
    "data": {"name": "synthetic", "examples": 800, "test_examples": 200, "input": [32], "classes": 5},
    "partition": {"name": "shards", "clients": 20},
    "model": {"name": "mlp_2nn"},
    "trainer": {"name": "sgd", "batch_size": 10, "learning_rate": 0.1, "schedule": "cosine", "decay": 0.1, "decay_every": 4},
    "sampler": {"name": "poisson"},
    "round": {"cohort": 6, "weighting": "uniform"},
}
# run.json: what a clock, the memory allocator or the caller decides.
MEASURED = {"seconds", "seconds_rounds", "cpu_seconds_rounds", "train_samples_per_s", "client_rounds_per_s", "peak_rss_bytes", "workers"}


def result_of(run):
    return {key: value for key, value in run.items() if key not in MEASURED}


class Parity(support.CliTest):
    def assert_same_for_any_workers(self, file):
        first = self.simulate(file, "one", "--workers", "1")
        self.assertEqual(first["status"], "finished")
        self.assertEqual(sha256_of(self.folder / "one" / "model.safetensors"), first["model_sha256"])
        for output, workers in (("two", "2"), ("four", "4"), ("two again", "2")):
            run = self.simulate(file, output, "--workers", workers)
            self.assertEqual(run["workers"], int(workers))
            self.assertEqual(result_of(run), result_of(first), output)
            self.assertEqual(metrics(self.folder / output), metrics(self.folder / "one"), output)
            self.assertEqual(sha256_of(self.folder / output / "model.safetensors"), first["model_sha256"], output)
        return first

    def test_tiny_is_the_same_for_any_workers(self):
        self.assert_same_for_any_workers(TINY)

    def test_devices_codec_and_server_optimizer_are_the_same_for_any_workers(self):
        self.assert_same_for_any_workers(self.write("everything.json", EVERYTHING))
        rounds = metrics(self.folder / "one")
        seen = {outcome for one in rounds for outcome in one["outcomes"]}
        self.assertLessEqual({"accepted", "late", "left"}, seen, "the experiment must have late and lost clients to be a test")
        self.assertEqual([one["round"] for one in rounds if one.get("client_accuracy")], [3, 6])

    def test_a_preset_with_a_poisson_cohort_is_the_same_for_any_workers(self):
        self.assert_same_for_any_workers(self.write("preset.json", PRESET))
        self.assertGreater(len({len(one["cohort"]["clients"]) for one in metrics(self.folder / "one")}), 1)

    def test_thread_settings_of_the_environment_change_nothing(self):
        threads = dict(os.environ, OMP_NUM_THREADS="4", OPENBLAS_NUM_THREADS="4", MKL_NUM_THREADS="4")
        file = self.write("preset.json", PRESET)
        self.assertEqual(self.simulate(file, "plain", "--workers", "2")["model_sha256"],
                         self.simulate(file, "threads", "--workers", "2", env=threads)["model_sha256"])

    def test_another_seed_gives_another_model(self):
        hashes = {self.simulate(TINY, f"seed-{seed}", "--set", f"seed={seed}")["model_sha256"] for seed in (1, 2, 3)}
        self.assertEqual(len(hashes), 3)

    def test_a_runs_own_experiment_gives_its_model_again(self):
        for name, document in (("everything", EVERYTHING), ("preset", PRESET)):
            first = self.simulate(self.write(f"{name}.json", document), name)
            again = self.simulate(f"{name}/experiment.json", f"{name} again")
            self.assertEqual(again["model_sha256"], first["model_sha256"])
            self.assertEqual(read_json(self.folder / name / "experiment.json"),
                             read_json(self.folder / f"{name} again" / "experiment.json"))

    def test_how_often_it_evaluates_does_not_change_the_model(self):
        often = self.simulate(TINY, "often", "--set", "evaluation.every=1")
        rarely = self.simulate(TINY, "rarely", "--set", "evaluation.every=0")
        self.assertEqual(often["model_sha256"], rarely["model_sha256"])
        self.assertEqual((often["accuracy"], often["loss"]), (rarely["accuracy"], rarely["loss"]))


if __name__ == "__main__":
    support.main()
