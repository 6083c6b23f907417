"""`fl up`: a federation of real processes trains to the bits of the simulation, survives its clients, and goes on after Ctrl-C."""

import json
import os
import pathlib
import select
import shutil
import signal

import support
from support import experiment, metrics, read_json, sha256_of

CLIENTS = 4


def federation(clients=CLIENTS, **changes):
    """A few clients, of whom not all are asked in a round."""
    document = {"name": "up", "rounds": 6, "partition": {"name": "dirichlet", "clients": clients, "alpha": 0.5},
                "round": {"cohort": 3}, "evaluation": {"every": 2}}
    document.update(changes)
    return experiment(**document)


# Weights of 106 kB: they travel as blobs in chunks, not inside a frame.
WIDE = {"name": "spec", "stages": [{"linear": {"out": 2048}}, {"relu": {}}, {"linear": {"out": "classes"}}]}


def children_of(process):
    """The processes that a process started: {name of its configuration's folder or file: number}."""
    children = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue  # it has ended meanwhile
        if parent == process.pid and len(words) > 1:
            file = pathlib.Path(words[1])
            children[file.parent.name if file.name == "client.json" else "aggregator"] = int(entry.name)
    return children


def wait_for_round(process, number):
    """Reads standard output up to the report of a round (or a later one) and returns the rounds that were seen."""
    seen = []
    for line in process.stdout:
        seen.append(json.loads(line)["round"])
        if seen[-1] >= number:
            return seen
    raise AssertionError(f"the run ended before round {number}")


def learned(folder):
    """What the rounds did, without clocks."""
    return [{key: value for key, value in one.items() if key != "virtual_seconds"} for one in metrics(folder)]


class UpTest(support.CliTest):
    def up(self, file, output, *arguments, clients=CLIENTS, code=0):
        return self.fl("up", file, "--clients", str(clients), "--output", output, *arguments, code=code)

    def start_up(self, file, output, clients=CLIENTS):
        return self.start("up", file, "--clients", str(clients), "--output", output, "--json")

    def assert_replay_agrees(self, folder, run):
        last = self.fl("replay", folder, "--json").objects()[-1]
        self.assertEqual(last, {"agrees": True, "rounds": run["rounds"], "model_sha256": run["model_sha256"]})


class Parity(UpTest):
    def assert_as_simulated(self, document):
        file = self.write("federation.json", document)
        simulated = self.simulate(file, "simulated")
        result = self.up(file, "deployed", "--json")
        *rounds, summary = result.objects()
        self.assertEqual(result.err, "", "nothing but JSON for a program that reads it")
        self.assertEqual([one["round"] for one in rounds], list(range(1, document["rounds"] + 1)))
        self.assertEqual(summary, read_json(self.folder / "deployed/run/run.json"))
        for key in ("status", "rounds", "accuracy", "loss", "model_sha256", "parameters", "bytes_up", "bytes_down"):
            self.assertEqual(summary[key], simulated[key], key)
        self.assertEqual(sha256_of(self.folder / "deployed/run/model.safetensors"), simulated["model_sha256"])
        self.assertEqual(learned(self.folder / "deployed/run"), learned(self.folder / "simulated"))
        self.assert_replay_agrees("deployed", summary)

    def test_fedavg_is_as_simulated(self):
        self.assert_as_simulated(federation(strategy={"name": "fedavg"}, model=WIDE))

    def test_fedopt_with_codec_and_client_evaluation_is_as_simulated(self):
        self.assert_as_simulated(federation(codec={"name": "fp16"}, evaluation={
            "every": 3, "per_client_every": 3, "per_client_count": 4, "client_holdout": 0.2}))


class Folder(UpTest):
    def test_prints_the_summary_of_simulate_and_keeps_everything_in_its_folder(self):
        file = self.write("federation.json", federation(clients=20, rounds=2))
        result = self.fl("up", file, "--clients", "3", "--set", "seed=5")
        folder = self.folder / "runs" / "up-up"
        run = read_json(folder / "run" / "run.json")
        for part in (run["model_sha256"], "runs/up-up/run/report.html", "accuracy", "traffic"):
            self.assertIn(part, result.out)
        self.assertIn("partition.clients is 3 here", result.err)
        self.assertIn("round 2/2", result.err)
        self.assertEqual(read_json(folder / "run" / "partition.json")["clients"], 3)
        self.assertIn("<html", (folder / "run" / "report.html").read_text(encoding="utf-8"))
        shards = [read_json(folder / "clients" / str(i) / "examples.json") for i in range(3)]
        self.assertEqual(sorted(sum(shards, [])), list(range(400)), "every example belongs to one client")
        for key in folder.rglob("*.key"):
            self.assertEqual(key.stat().st_mode & 0o077, 0, key)
        self.assertEqual(read_json(folder / "server.json")["experiment"]["seed"], 5)

    def test_quiet_prints_nothing(self):
        result = self.up(self.write("federation.json", federation(rounds=1)), "deployed", "--quiet")
        self.assertEqual((result.out, result.err), ("", ""))


class Faults(UpTest):
    def test_goes_on_without_three_clients_that_were_killed(self):
        file = self.write("federation.json", federation(clients=6, rounds=40, round={"cohort": 6}))
        process = self.start_up(file, "deployed", clients=6)
        wait_for_round(process, 5)
        children = children_of(process)
        self.assertEqual(sorted(children), ["0", "1", "2", "3", "4", "5", "aggregator"])
        for client in ("1", "3", "4"):
            os.kill(children[client], signal.SIGKILL)
        result = self.finish(process)
        self.assertEqual(result.code, 0, result.err)
        for client in (1, 3, 4):
            self.assertIn(f"warning: client-{client} ended: killed by signal 9", result.err)
        run = read_json(self.folder / "deployed/run/run.json")
        self.assertEqual((run["status"], run["rounds"]), ("finished", 40))
        self.assertEqual(metrics(self.folder / "deployed/run")[-1]["cohort"], {"clients": [0, 2, 5], "outcomes": [0, 0, 0]})
        self.assert_replay_agrees("deployed", run)

    def test_after_ctrl_c_the_same_command_goes_on_to_the_bits_of_the_undisturbed_run(self):
        file = self.write("federation.json", federation(rounds=40))
        simulated = self.simulate(file, "simulated")
        process = self.start_up(file, "deployed")
        seen = wait_for_round(process, 10)
        process.send_signal(signal.SIGINT)
        result = self.finish(process)
        self.assertEqual(result.code, 130, result.err)
        self.assert_one_error_line(result, "interrupted", "go on with the same command and --output deployed")
        seen += [one["round"] for one in result.objects()]
        self.assertLess(seen[-1], 40, "it must still have been on its way")
        *rounds, summary = self.up(file, "deployed", "--json").objects()
        self.assertEqual(seen + [one["round"] for one in rounds], list(range(1, 41)), "each round once")
        self.assertEqual(summary["model_sha256"], simulated["model_sha256"])
        self.assertEqual(learned(self.folder / "deployed/run"), learned(self.folder / "simulated"))

    def test_a_finished_federation_is_shown_again(self):
        file = self.write("federation.json", federation(rounds=2))
        first = self.up(file, "deployed", "--json").objects()[-1]
        again = self.up(file, "deployed", "--json").objects()
        self.assertEqual([one["model_sha256"] for one in again], [first["model_sha256"]])

    def test_leaves_no_process_behind_when_it_is_killed(self):
        process = self.start_up(self.write("federation.json", federation(rounds=1000)), "deployed")
        wait_for_round(process, 1)
        children = children_of(process)
        self.assertEqual(len(children), CLIENTS + 1)
        handles = [os.pidfd_open(number) for number in children.values()]
        process.kill()
        for handle in handles:
            self.addCleanup(os.close, handle)
            ended, _, _ = select.select([handle], [], [], support.HANGS_AFTER_S)
            self.assertTrue(ended, "a process lives on")

    def test_a_run_that_fails_ends_with_the_words_and_the_code_of_the_aggregator(self):
        document = federation(trainer={"name": "sgd", "batch_size": 10, "learning_rate": 1e6})
        result = self.up(self.write("federation.json", document), "deployed", code=5)
        self.assert_one_error_line(result, "the aggregator ended with exit code 5", "gave up after 3 abandoned rounds in a row")

    def test_fails_when_a_client_cannot_start(self):
        file = self.write("federation.json", federation(rounds=1000))
        process = self.start_up(file, "deployed")
        wait_for_round(process, 1)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(process).code, 130)
        client = self.folder / "deployed/clients/2/client.json"
        client.write_text(json.dumps({**read_json(client), "sever": "x"}), encoding="utf-8")
        result = self.up(file, "deployed", code=5)
        self.assert_one_error_line(result, "client-2, which ended before the first round: exit code 2", "unknown key", "go on with")

    def test_stops_in_order_after_its_timeout(self):
        result = self.up(self.write("federation.json", federation(rounds=100000)), "deployed", "--timeout", "5", code=130)
        self.assert_one_error_line(result, "not finished within --timeout 5.0 s", "--output deployed")


class BadInput(UpTest):
    def assert_refused(self, *parts, clients=CLIENTS, output="deployed", code=2, **changes):
        file = self.write("federation.json", federation(**changes))
        result = self.up(file, output, clients=clients, code=code)
        self.assert_one_error_line(result, *parts)

    def test_mistakes_in_the_command_line(self):
        file = self.write("federation.json", federation())
        self.assert_one_error_line(self.fl("up", file, code=2), "--clients")
        self.assert_one_error_line(self.fl("up", file, "--clients", "0", code=2), "--clients")
        self.assert_one_error_line(self.fl("up", file, "--clients", "four", code=2), "--clients")
        self.assert_one_error_line(self.fl("up", "gone.json", "--clients", "4", code=2), "gone.json")
        self.assert_one_error_line(self.fl("up", file, "--clients", "4", "--timeout", "0", code=2), "--timeout")
        self.assert_one_error_line(self.fl("up", file, "--clients", "4", "--set", "rond=1", code=2), "rond", "did you mean 'round'")
        self.assertFalse((self.folder / "runs").exists(), "a mistake makes no folder")

    def test_more_are_asked_in_a_round_than_there_are(self):
        self.assert_refused("federation.json: round.cohort: got 3, expected at most the number of clients (2)", clients=2)

    def test_a_folder_with_something_else(self):
        (self.folder / "deployed").mkdir()
        self.write("deployed/thesis.tex", "years of work")
        self.assert_refused("deployed", "no server.json", "choose another --output")
        self.assertEqual([path.name for path in (self.folder / "deployed").iterdir()], ["thesis.tex"])

    def test_a_folder_of_another_federation(self):
        self.up(self.write("federation.json", federation(rounds=1)), "deployed")
        self.assert_refused("deployed: holds a federation of another experiment", rounds=2)
        self.assert_refused("another number of clients (4)", rounds=1, clients=5)

    def test_a_folder_that_is_in_use(self):
        process = self.start_up(self.write("federation.json", federation(rounds=1000)), "deployed")
        wait_for_round(process, 1)
        self.assert_refused("deployed is in use", rounds=1000)

    def test_a_program_without_its_companions(self):
        alone = self.folder / "bin" / "fl"
        alone.parent.mkdir()
        shutil.copy2(self.program, alone)
        self.program = str(alone)
        self.assert_refused("there is no program 'fl-aggregator' beside 'fl'")


if __name__ == "__main__":
    support.main()
