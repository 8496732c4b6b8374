"""What the command lines share: the options of whatever takes an experiment, and how a parser's complaint reads."""

import argparse


def experiment_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Parser of ``dgs COMMAND EXPERIMENT [--output DIR] [--set KEY=VALUE ...]``."""
    parser = argparse.ArgumentParser(prog=f"dgs {command}", description=description)
    parser.add_argument("experiment", help="a YAML file, or a shipped experiment such as quickstart")
    parser.add_argument("--output", metavar="DIR", help="folder of the run (default: runs/NAME)")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="change a setting; may be repeated"
    )
    return parser


def complaint(error: BaseException) -> str:
    """What jsonargparse complains about, in one line, without its listings of types and values."""
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    noise = ("Does not validate against", "Subtypes:", "Errors:", "Given value", "Expected a <class 'NoneType'>")
    telling = [line.rstrip(".:") for line in lines if line and not line.startswith(noise)]
    return ": ".join(telling)[:300]
