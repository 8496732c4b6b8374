"""The command line of everything that takes an experiment."""

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
