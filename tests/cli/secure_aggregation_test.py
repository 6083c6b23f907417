"""Secure aggregation in the program: the same model, in any number of threads and after a crash; drop-outs, refusals, and what `fl plan` says of it."""

import json

import support
from support import EXPERIMENTS, experiment, metrics, read_json

CONFIG, TRAINING = 2, 5


def secure_experiment(**changes):
    """20 clients, 10 of them in a round. A tenth leaves before its update is in the sum, as many afterwards; 4 may."""
    document = experiment(rounds=6, round={"cohort": 10, "minimum_updates": 3}, devices={"failure_probability": 0.1},
                          secure_aggregation={"adversary_rate": 0.05, "dropout_rate": 0.4})
    document.update(changes)
    return document


class SameBits(support.CliTest):
    def assert_same_model(self, file, *settings):
        with self.subTest(" ".join(settings)):
            folder = "-".join(setting.split("=")[0] for setting in settings) or "plain"
            open_run = self.simulate(file, f"{folder}-open", "--set", "secure_aggregation=null", *(part for s in settings for part in ("--set", s)))
            secure_run = self.simulate(file, f"{folder}-secure", *(part for s in settings for part in ("--set", s)))
            self.assertEqual(secure_run["model_sha256"], open_run["model_sha256"])
            shown = [[{key: one[key] for key in ("round", "outcomes", "examples", "steps", "training_loss", "update_norm", "abandoned")} for one in
                      metrics(self.folder / f"{folder}-{kind}")] for kind in ("open", "secure")]
            self.assertEqual(shown[1], shown[0])
            self.assertGreater(secure_run["bytes_up"], open_run["bytes_up"])
            return secure_run

    def test_as_without(self):
        file = self.write("secure.json", secure_experiment())
        run = self.assert_same_model(file)
        rounds = metrics(self.folder / "plain-secure")
        self.assertTrue(any(one["outcomes"].get("left", 0) > 0 for one in rounds), "the experiment has drop-outs")
        self.assert_same_model(file, "round.weighting=uniform")
        self.assert_same_model(file, "codec.name=fp16")
        self.assert_same_model(file, "sampler.name=poisson")
        self.assert_same_model(file, "round.over_selection=1.5", "devices.failure_probability=0")
        again = self.simulate(file, "four", "--workers", "4")
        self.assertEqual(again["model_sha256"], run["model_sha256"])

    def test_fewer_bits_are_another_model_of_the_same_kind(self):
        file = self.write("secure.json", secure_experiment(rounds=3))
        exact = self.simulate(file, "exact", "--set", "round.weighting=uniform", "--set", "round.update_bound_bits=1")
        rounded = self.simulate(file, "rounded", "--set", "round.weighting=uniform", "--set", "round.update_bound_bits=1", "--set", "secure_aggregation.value_bits=16")
        self.assertNotEqual(rounded["model_sha256"], exact["model_sha256"])
        self.assertAlmostEqual(rounded["loss"], exact["loss"], delta=0.01)
        self.assertLess(rounded["bytes_up"], exact["bytes_up"])
        self.assertEqual(self.simulate(file, "again", "--set", "round.weighting=uniform", "--set", "round.update_bound_bits=1", "--set",
                                       "secure_aggregation.value_bits=16", "--workers", "1")["model_sha256"], rounded["model_sha256"])


class Refusals(support.CliTest):
    def assert_refused(self, changes, *parts):
        for command in ("simulate", "plan"):
            with self.subTest(f"{command} {changes}"):
                file = self.write("bad.json", secure_experiment(**changes))
                before = sorted(self.folder.rglob("*"))
                result = self.fl(command, file, code=CONFIG)
                self.assertEqual(result.out, "")
                self.assert_one_error_line(result, *parts)
                self.assertEqual(sorted(self.folder.rglob("*")), before, "nothing is left behind")

    def test_what_would_show_single_clients(self):
        self.assert_refused({"round": {"cohort": 2}}, "bad.json: round.cohort: got 2, expected at least 3 (secure_aggregation.minimum_survivors)")
        self.assert_refused({"secure_aggregation": {"minimum_survivors": 11}}, "bad.json: round.cohort: got 10, expected at least 11")
        self.assert_refused({"evaluation": {"per_client_every": 2, "client_holdout": 0.2}}, "evaluation.per_client_every: got 2, expected 0 under secure_aggregation")
        self.assert_refused({"round": {"cohort": 8, "weighting": "uniform"}, "sampler": {"name": "poisson"}, "devices": None, "privacy": {
            "mechanism": {"name": "central_gaussian", "adaptive": {}}, "noise_multiplier": 1, "delta": 1e-5, "sampling": "poisson"}}, "privacy.mechanism.adaptive")

    def test_keys(self):
        self.assert_refused({"secure_aggregation": {"drop_out_rate": 0.1}}, "secure_aggregation.drop_out_rate: unknown key", "did you mean 'dropout_rate'?")
        self.assert_refused({"secure_aggregation": {"server": "honest"}}, "secure_aggregation.server: got \"honest\"")

    def test_what_no_round_could_do(self):
        small = {"cohort": 4, "minimum_updates": 3}
        for rates, part in (({"adversary_rate": 0.5, "dropout_rate": 0.3}, "adversary_rate + 2 * dropout_rate is 1.1"),
                            ({"adversary_rate": 0.3, "dropout_rate": 0.3}, "no threshold keeps secrets from the adversaries")):
            self.assert_refused({"round": small, "secure_aggregation": rates}, part)


class DropOuts(support.CliTest):
    def test_too_few_end_the_run_with_the_reason(self):
        file = self.write("gone.json", secure_experiment(devices={"failure_probability": 0.9}))
        result = self.fl("simulate", file, "--output", "run", code=TRAINING)
        self.assertRegex(result.last_error(), r"last reason: secure aggregation, round 3: \d+ of \d+ clients shared; \d+ are needed")
        self.assertEqual([one["examples"] for one in metrics(self.folder / "run")], [0, 0, 0])


class Plan(support.CliTest):
    def plan(self, *arguments):
        return json.loads(self.fl("plan", *arguments, "--json").out)

    def test_says_what_it_costs(self):
        file = self.write("secure.json", secure_experiment(round={"cohort": 8}, secure_aggregation={}))
        whole = self.plan(file)
        secure = whole["secure_aggregation"]
        # 8 clients: a tenth of them are none, a fifth is one.
        self.assertEqual((secure["clients"], secure["dropouts"], secure["adversaries"], secure["least_survivors"]), (8, 1, 0, 7))
        self.assertEqual(secure["server"], "semi_malicious")
        self.assertGreaterEqual(secure["neighbours"], secure["threshold"])
        self.assertEqual(secure["vector_bytes"], 44 + -(-secure["values"] * secure["value_bits"] // 8))
        self.assertGreaterEqual(secure["values"], whole["parameters"])
        self.assertEqual(whole["bytes_up_per_round"], 8 * secure["bytes_up_per_client"])
        self.assertEqual(whole["bytes_down_per_round"], 8 * (4 * whole["parameters"] + secure["bytes_down_per_client"]))
        self.assertAlmostEqual(whole["seconds"], whole["training_seconds"] + whole["evaluation_seconds"] + whole["secure_aggregation_seconds"])
        self.assertIsNone(self.plan(file, "--set", "secure_aggregation=null")["secure_aggregation"])
        self.assertEqual([warning.split(":")[0] for warning in secure["warnings"]], ["10 % of 8 clients are none"])

    def test_warns_of_rates_that_come_to_nobody(self):
        file = self.write("small.json", secure_experiment(round={"cohort": 4}, secure_aggregation={}))
        out = self.fl("plan", file).out
        self.assertRegex(out, r"warning +20 % of 4 clients are none: one drop-out after training abandons the round")
        self.assertRegex(out, r"warning +10 % of 4 clients are none: nothing is promised once one client works with the server")
        self.assertRegex(out, r"stands +0 drop-outs")
        self.assertEqual(self.plan(file, "--set", "round.cohort=10")["secure_aggregation"]["warnings"], [])

    def test_knows_the_bits_of_a_privacy_promise(self):
        file = self.write("private.json", secure_experiment(devices=None, secure_aggregation={}, round={"cohort": 8, "minimum_updates": 6, "weighting": "uniform"}, privacy={
            "mechanism": {"name": "distributed_skellam", "clip_norm": 0.5, "bits": 18}, "noise_multiplier": 1, "delta": 1e-5, "adjacency": "replace_one",
            "accountant": {"name": "rdp"}}))
        secure = self.plan(file)["secure_aggregation"]
        self.assertEqual(secure["value_bits"], 18)
        self.assertEqual(secure["dropouts"], 1)
        floor = self.plan(file, "--set", "round.minimum_updates=8")["secure_aggregation"]
        self.assertEqual((floor["least_survivors"], floor["dropouts"]), (8, 0))
        self.assertIn("round.minimum_updates", floor["warnings"][0])
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["private.json"], "a plan writes nothing")


class Study(support.CliTest):
    def test_of_this_name_is_well_formed(self):
        document = read_json(EXPERIMENTS / "secure_aggregation.json")
        self.assertIsNotNone(document["secure_aggregation"])
        self.assertGreater(document["devices"]["failure_probability"], 0)


if __name__ == "__main__":
    support.main()
