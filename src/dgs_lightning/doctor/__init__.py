"""The command ``dgs doctor``: what would go wrong with an experiment, before it runs for hours. It leaves nothing."""

from dgs_lightning.commands.arguments import experiment_parser
from dgs_lightning.errors import InputError


def main(args: list[str]) -> int:
    """Examine the experiment that the command line names, print the findings, and return 1 if there is a problem."""
    description = "Say what would go wrong with an experiment, before hours are spent on it. It leaves no file."
    parser = experiment_parser("doctor", description)
    measured = "also let the named estimator and teacher classify some validation images; nothing is downloaded for it"
    parser.add_argument("--measure", action="store_true", help=measured)
    options = parser.parse_args(args)

    # These take seconds to import.
    from dgs_lightning.doctor.examination import examine
    from dgs_lightning.doctor.finding import of_error, show
    from dgs_lightning.experiment.settings import load_experiment

    try:
        experiment = load_experiment(options.experiment, options.set, options.output)
        findings = examine(experiment, options.measure)
    except InputError as error:
        findings = [of_error(error)]
    return show(findings)
