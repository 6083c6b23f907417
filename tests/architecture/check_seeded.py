#!/usr/bin/env python3
"""Fails when a deployed program holds the code of SeededNoiseKeys: then someone could talk it into noise that can be foreseen.

    check_seeded.py CONTROL PROGRAM...

CONTROL is a program that does hold it: the check must find it there, else it proves nothing. Exit code 0: as it should be.
"""
import subprocess
import sys

SYMBOL = "fl::SeededNoiseKeys::"


def holds(program):
    run = subprocess.run(["nm", "-C", program], capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(f"{program}: nm cannot read it: {run.stderr.strip()}")
    symbols = run.stdout.splitlines()
    if not any(" main" in line for line in symbols):
        raise SystemExit(f"{program}: no symbols, it was stripped; expected one as the build leaves it")
    return [line for line in symbols if SYMBOL in line]


def main(arguments):
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    control, *programs = arguments
    failures = [] if holds(control) else [f"{control}: the control has no {SYMBOL}, so the check finds nothing"]
    failures += [f"{program}: {line}, but deployed programs must not link fl_privacy_seeded"
                 for program in programs for line in holds(program)]
    print("\n".join(failures) if failures else f"no {SYMBOL} in {', '.join(programs)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
