"""The command ``dgs doctor``: what would go wrong with an experiment, before it runs for hours. It leaves nothing."""

from dgs_lightning.commands.arguments import experiment_parser
from dgs_lightning.doctor.finding import of_error, show
from dgs_lightning.errors import InputError, printable
from dgs_lightning.experiment.settings import load_experiment


def main(args: list[str]) -> int:
    """Examine the experiment that the command line names, print the findings, and return 1 if there is a problem."""
    description = "Say what would go wrong with an experiment, before hours are spent on it. It leaves no file."
    parser = experiment_parser("doctor", description, needed=False)
    measured = "also let the named estimator and teacher classify some validation images; nothing is downloaded for it"
    parser.add_argument("--measure", action="store_true", help=measured)
    reported = "print versions and settings for an issue, without paths, and check nothing; needs no experiment"
    parser.add_argument("--report", action="store_true", help=reported)
    options = parser.parse_args(args)
    if options.experiment is None and not options.report:
        raise InputError.unset("experiment", "an experiment to examine", "quickstart")

    try:
        experiment = load_experiment(options.experiment, options.set, options.output) if options.experiment else None
        if experiment is None or options.report:
            from dgs_lightning.doctor.report import report  # takes seconds to import, as does the next one

            print(printable(report(experiment)), end="")
            return 0
        from dgs_lightning.doctor.examination import examine

        findings = examine(experiment, options.measure)
    except InputError as error:
        findings = [of_error(error)]
    return show(findings)
