"""Whatever the user gets wrong, the answer is one line that names it, and the documented exit code (docs/exit-codes.md)."""

import gzip
import random
import struct

import support
from support import TINY, experiment, metrics, read_json

CONFIG, IO, TRAINING = 2, 4, 5


def idx(dimensions, values, magic=0x08):
    """An IDX file of bytes: magic number, sizes, values."""
    header = bytes([0, 0, magic, len(dimensions)]) + b"".join(struct.pack(">I", size) for size in dimensions)
    return header + bytes(values)


def images(count):
    return idx([count, 4, 4], [(i * 37) % 256 for i in range(count * 16)])


def labels(count, classes=3):
    return idx([count], [i % classes for i in range(count)])


def idx_experiment(**data):
    files = {"train_images": "train-images", "train_labels": "train-labels", "test_images": "test-images", "test_labels": "test-labels"}
    return experiment(rounds=2, data={"name": "idx", **files, **data}, partition={"name": "iid", "clients": 5}, round={"cohort": 2},
                      model={"name": "logistic"})


class BadInputTest(support.CliTest):
    def assert_refused(self, arguments, *parts, code=CONFIG):
        with self.subTest(" ".join(map(str, arguments))[:200]):
            before = sorted(self.folder.rglob("*"))
            result = self.fl(*arguments, code=code)
            self.assertEqual(result.out, "")
            self.assert_one_error_line(result, *parts)
            self.assertEqual(sorted(self.folder.rglob("*")), before, "nothing is left behind")

    def assert_file_refused(self, content, *parts, code=CONFIG):
        self.write("bad.json", content)
        self.assert_refused(["simulate", "bad.json"], "bad.json", *parts, code=code)


class CommandLine(BadInputTest):
    def test_commands_and_options(self):
        for arguments, parts in (
            ([], ["expected a command", "simulate, resume, up"]),
            (["simulat", TINY], ["there is no command 'simulat'", "did you mean 'simulate'?"]),
            (["--fast"], ["there is no option '--fast'"]),
            (["simulate"], ["simulate: FILE is required"]),
            (["sweep", TINY], ["sweep: --grid is required"]),
            (["simulate", TINY, "--wrokers", "2"], ["there is no option '--wrokers'", "did you mean '--workers'?"]),
            (["simulate", TINY, TINY], ["one argument too many", "tiny.json"]),
            (["simulate", TINY, "--workers", "0"], ["--workers", "1024"]),
            (["simulate", TINY, "--set"], ["--set", "PATH=VALUE"]),
            (["config"], ["config: expected an experiment FILE or --schema"]),
        ):
            self.assert_refused(arguments, *parts)

    def test_settings(self):
        for setting, parts in (
            ("rounds", ["--set rounds", "expected path=value"]),
            ("round..cohort=5", ["a part of the path is empty"]),
            ("rounds.x=1", ["rounds is 5, which has no keys"]),
            ("model.stages.99={}", ["model.stages is a list of 6", "got '99'"]),
            ("round.cohrt=5", ["round.cohrt: unknown key", "did you mean 'cohort'?"]),
            ("rounds=", ["rounds: got \"\", expected an integer"]),
            ("seed=99999999999999999999", ["seed: got", "expected an integer"]),
            ("trainer.learning_rate=1e999", ["trainer.learning_rate: got \"1e999\", expected a number"]),
            ("data={\"name\": \"csv\", \"name\": \"idx\"}", ["--set data: the key 'name' appears twice"]),
            (b"description=\xff\xfe", ["--set", "UTF-8"]),
            ("description=" + "[" * 10000 + "]" * 10000, ["--set description: nested deeper than 64"]),
        ):
            self.assert_refused(["config", TINY, "--set", setting], *parts)

    def test_grids(self):
        for grid, parts in (
            ("seed", ["--grid seed", "expected path=value,value"]),
            ("sed=1,2", ["sed: unknown key", "did you mean 'seed'?"]),
            ("seed=1,,2", ["seed: got \"\", expected an integer"]),
            ("seed=" + ",".join(map(str, range(10001))), ["more than 10000 runs"]),
        ):
            self.assert_refused(["sweep", TINY, "--grid", grid, "--output", "runs"], *parts)

    def test_full_standard_output(self):
        with open("/dev/full", "wb") as full:
            result = self.fl("config", TINY, code=IO, stdout=full)
        self.assert_one_error_line(result, "cannot write to standard output")


class ExperimentFile(BadInputTest):
    def test_files_that_are_no_json(self):
        self.assert_refused(["simulate", "no.json"], "no.json: no such file")
        self.assert_refused(["simulate", self.folder], f"{self.folder}: is a folder")
        self.assert_file_refused("", "bad.json:1:1: not valid JSON", "it is empty; expected an object")
        self.assert_file_refused("{\n  \"rounds\": 3,\n  \"seed\" 4\n}", "bad.json:3:10: not valid JSON")
        self.assert_file_refused("{\"rounds\": 1, \"seed\": 2, \"rounds\": 3}", "'rounds'", "twice")
        self.assert_file_refused("{\"rounds\": 1e999}", "too large")
        self.assert_file_refused("[" * 100000 + "]" * 100000, "nested deeper than 64")
        self.assert_file_refused(random.Random(1).randbytes(5000), "not valid JSON")
        self.assert_file_refused(b"{\"name\": \"\xc3\x28\"}", "ill-formed UTF-8")
        self.assert_file_refused(" " * (5 << 20), "the limit is 4194304", code=IO)

    def test_documents_that_are_no_experiment(self):
        for content in ("null", "[]"):
            self.assert_file_refused(content, f"the document: got {content}, expected an object")
        self.assert_file_refused("{}", "data: missing; expected an object {\"name\": …} that names a data")

    def test_keys_and_values(self):
        good = experiment()
        for changes, parts in (
            ({"cohort": 5}, ["cohort: unknown key (value 5)"]),
            ({"strateggy": {"name": "fedavg"}}, ["strateggy: unknown key", "did you mean 'strategy'?"]),
            ({"trainer": {**good["trainer"], "learning_rat": 1}}, ["trainer.learning_rat: unknown key", "'learning_rate'"]),
            ({"rounds": "5"}, ["rounds: got \"5\", expected an integer from 1"]),
            ({"round": {"cohort": -5}}, ["round.cohort: got -5, expected an integer from 1"]),
            ({"round": {"cohort": 50}}, ["round.cohort: got 50, expected at most the number of clients (20)"]),
            ({"round": {"cohort": 3, "deadline_s": 1}}, ["round.deadline_s", "devices"]),
            ({"round": {"weighting": "exmaples"}}, ["round.weighting: got \"exmaples\"", "did you mean 'examples'?"]),
            ({"round": []}, ["round: got [], expected an object"]),
            ({"evaluation": {"per_client_every": 2}}, ["evaluation.client_holdout: got 0", "a share above 0"]),
            ({"trainer": {"name": "sdg"}}, ["trainer.name: there is no trainer 'sdg'", "did you mean 'sgd'?"]),
            ({"trainer": "sgd"}, ["trainer: got \"sgd\", expected an object {\"name\": …}"]),
            ({"strategy": {"name": "fedopt", "optimizer": "adma"}}, ["strategy.optimizer: got \"adma\"", "did you mean 'adam'?"]),
            ({"sampler": {"name": "round_robin"}}, ["sampler.name: there is no sampler 'round_robin'", "poisson", "uniform"]),
            ({"observers": [{"name": "early_stop", "targt": 1}]}, ["observers.0.targt: unknown key", "did you mean 'target'?"]),
            ({"secure_aggregation": {"dropout_rat": 0.1}}, ["secure_aggregation.dropout_rat: unknown key", "did you mean 'dropout_rate'?"]),
            ({"secure_aggregation": []}, ["secure_aggregation: got [], expected an object"]),
            ({"expect": {"low": 0.9, "high": 0.8}}, ["expect.low: got 0.9, expected at most expect.high"]),
            ({"device": "gpu"}, ["device: got \"gpu\", expected \"cpu\", \"cuda\""]),
            ({"device": "cuda:1,cuda:1"}, ["device: got \"cuda:1,cuda:1\"", "each GPU once"]),
            # Whatever is missing: CUDA in LibTorch, a GPU, or so many of them.
            ({"device": "cuda:99"}, ["device: got \"cuda:99\", but "]),
            ({"name": "../x"}, ["name: got \"../x\""]),
        ):
            self.assert_file_refused({**good, **changes}, *parts)

    def test_models_that_do_not_fit_the_data(self):
        def spec(*stages):
            return {"model": {"name": "spec", "stages": list(stages)}}

        for changes, parts in (
            (spec({"conv": {"out": 4, "kernel": 3}}, {"flatten": {}}, {"linear": {"out": "classes"}}), ["model.stages.0.conv", "[8]"]),
            (spec({"linear": {"out": 5}}), ["model.stages", "[5]", "[4]"]),
            (spec({"liner": {"out": 4}}), ["model.stages.0", "liner", "did you mean 'linear'?"]),
            (spec(), ["model.stages"]),
            ({"model": {"name": "cnn_mcmahan"}}, ["model"]),
        ):
            self.assert_file_refused(experiment(**changes), *parts)


class DataFiles(BadInputTest):
    def setUp(self):
        super().setUp()
        for part, count in (("train", 60), ("test", 30)):
            self.write(f"{part}-images", images(count))
            self.write(f"{part}-labels", labels(count))

    def assert_data_refused(self, file, *parts, **data):
        self.assert_file_refused(idx_experiment(**data), file, *parts)

    def test_good_idx_files_are_read(self):
        self.write("good.json", idx_experiment())
        self.assertEqual(self.simulate("good.json", "run")["status"], "finished")

    def test_idx_files(self):
        whole = gzip.compress(images(60))
        damaged = bytearray(whole)
        damaged[-6] ^= 0xFF  # the checksum of the content
        for content, parts in (
            (whole[:len(whole) // 2], ["the gz data end too early", "fetch the file again"]),
            (bytes(damaged), ["damaged gz data"]),
            (images(60)[:500], ["500 bytes", "expected 976"]),
            (idx([2**32 - 1] * 3, []), ["extent 4294967295"]),
            (b"", ["is empty"]),
            (random.Random(2).randbytes(976), ["train-images"]),
        ):
            self.write("train-images", content)
            self.assert_data_refused("train-images", *parts)
        self.write("train-images", images(60))
        self.assert_data_refused("no-images", "no such file", train_images="no-images")
        self.assert_data_refused(str(self.folder), "is no regular file", train_images=str(self.folder))

    def test_labels_out_of_range(self):
        self.assert_data_refused("train-labels: example 2 has the label 2", "expected 0 to 1", classes=2)
        self.write("test-labels", labels(30, classes=5))
        self.assert_data_refused("test-labels: example 3 has the label 3", "expected 0 to 2", classes=3)

    def test_csv_files(self):
        good = "a,b,label\n" + "".join(f"{i},{i % 5},{i % 2}\n" for i in range(40))
        for content, parts in (
            ("", ["is empty"]),
            (good.replace("label", "class"), ["label"]),
            (good + "1,2\n", ["data.csv:42", "3"]),
            (good + "1,x,0\n", ["data.csv:42", "x"]),
        ):
            self.write("data.csv", content)
            self.assert_file_refused(experiment(data={"name": "csv", "train": "data.csv", "test_fraction": 0.2}, round={"cohort": 2},
                                                partition={"name": "iid", "clients": 4}), *parts)

    def test_folders_of_data(self):
        for name in ("fashion_mnist", "leaf"):
            self.assert_file_refused(experiment(data={"name": name, "folder": "nothing"}), "nothing")


class Folders(BadInputTest):
    def test_folders_that_cannot_be_used(self):
        self.write("file", "text")
        (self.folder / "full").mkdir()
        self.write("full/mine.txt", "not yours")
        simulate = ["simulate", TINY, "--output"]
        self.assert_refused([*simulate, "file"], "cannot create the folder file", "Not a directory", code=IO)
        self.assert_refused([*simulate, "file/below"], "cannot create the folder file/below", code=IO)
        self.assert_refused([*simulate, "full"], "full is not empty (it has 'mine.txt')", "--output")
        self.assert_refused(["sweep", TINY, "--grid", "seed=1,2", "--output", "file"], "cannot create the folder file", code=IO)
        self.assert_refused(["resume", "full"], "full: not a run folder (no experiment.json)")
        self.assert_refused(["resume", "nothing"], "nothing: not a run folder")
        self.assert_refused(["report", "nothing"], "nothing", "no such folder", code=IO)
        self.assertEqual((self.folder / "full" / "mine.txt").read_text(encoding="utf-8"), "not yours")

    def test_a_report_that_cannot_be_written(self):
        self.simulate(TINY, "run")
        self.assert_refused(["report", "run", "--output", "no/folder/report.html"], "no/folder/report.html", code=IO)

    def test_runs_that_a_report_cannot_read(self):
        self.simulate(TINY, "run")
        lines = (self.folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        self.write("run/metrics.jsonl", "\n".join([lines[0], "{\"round\": ", *lines[1:]]) + "\n")
        self.assert_refused(["report", "run"], "metrics.jsonl", "2")
        self.write("run/metrics.jsonl", "\n".join(lines) + "\n")
        self.write("run/experiment.json", "{")
        self.assert_refused(["report", "run"], "experiment.json")

    def test_a_sweep_into_another_sweeps_folder(self):
        self.fl("sweep", TINY, "--grid", "seed=1,2", "--output", "runs")
        self.assert_refused(["sweep", TINY, "--set", "rounds=6", "--grid", "seed=1,2", "--output", "runs"],
                            "runs/seed=1: holds a run of another experiment", "--output")


class Training(support.CliTest):
    def test_a_loss_that_is_no_number_ends_the_run_with_its_reason(self):
        file = self.write("wild.json", experiment(rounds=20, model={"name": "mlp_2nn"}, trainer={"name": "sgd", "learning_rate": 1e6},
                                                  strategy={"name": "fedavg"}))
        result = self.fl("simulate", file, "--output", "run", "--json", code=TRAINING)
        self.assert_one_error_line(result, "gave up after 3 abandoned rounds in a row", "lower trainer.learning_rate")
        self.assertEqual([(one["round"], one["abandoned"]) for one in result.objects()], [(1, True), (2, True), (3, True)])
        self.assertEqual(read_json(self.folder / "run" / "run.json")["status"], "failed")
        self.assertEqual(len(metrics(self.folder / "run")), 3)
        self.assertTrue((self.folder / "run" / "model.safetensors").exists(), "the model before the trouble is kept")

    def test_devices_that_all_leave_end_the_run_with_their_number(self):
        file = self.write("gone.json", experiment(devices={"failure_probability": 1}))
        result = self.fl("simulate", file, "--output", "run", code=TRAINING)
        self.assert_one_error_line(result, "needs 1 updates, got 0: 5 left")

    def test_deadlines_that_nobody_meets_end_the_run_with_their_number(self):
        file = self.write("late.json", experiment(devices={"latency_s": 10}, round={"cohort": 5, "deadline_s": 1, "max_abandoned": 2}))
        result = self.fl("simulate", file, "--output", "run", code=TRAINING)
        self.assert_one_error_line(result, "gave up after 2 abandoned rounds in a row", "5 late")


if __name__ == "__main__":
    support.main()
