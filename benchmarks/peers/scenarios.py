"""The table of scenarios (scenarios.json), read alike by the peers' drivers and by benchmarks/compare. Standard library only."""

import argparse
import json
import pathlib

# Of shards, first models and updates. The order of batches and the cohorts are each peer's own.
SEED = 1

FILE = pathlib.Path(__file__).resolve().parent / "scenarios.json"


def load(quick=False):
    """{name: {key: value}}; quick puts each scenario's small sizes in place, which show that everything runs and measure nothing."""
    table = json.loads(FILE.read_text(encoding="utf-8"))
    for scenario in table.values():
        small = scenario.pop("quick")
        if quick:
            scenario.update(small)
    return table


def options(description, kind):
    """The command line of a driver of scenarios of this kind."""
    names = [name for name, scenario in load().items() if scenario["kind"] == kind]
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", required=True, choices=names)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, measures nothing")
    if kind == "training":
        parser.add_argument("--data", type=pathlib.Path, required=True, help="folder that setup made")
        parser.add_argument("--workers", type=int, default=2, help="processes that train, one thread each")
    return parser
