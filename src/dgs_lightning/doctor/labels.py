"""Whether the models that an experiment starts from know the classes of its data."""

from collections.abc import Iterator, Sequence

from dgs_lightning.doctor.finding import Finding, ok, problem, warning
from dgs_lightning.doctor.images import Trees, listed, renamed
from dgs_lightning.doctor.settings import is_used, setting
from dgs_lightning.doctor.weights import estimator_source
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.models.dit.formats import dit_labels

RENAME = "Where the classes are ImageNet's, name the class folders by WordNet id"


def check_labels_of_models(experiment: Experiment, stages: Sequence[Stage], trees: Trees) -> Iterator[Finding]:
    """The classes of the data against those of the DiT and of the estimator."""
    wanted = next((trees[role].labels for role in ("train", "data", "original", "pool") if role in trees), None)
    if wanted is None:
        return
    if experiment.dit is not None and is_used(experiment.dit, stages):
        yield _of_dit(experiment.dit, wanted, stages)
    if experiment.estimator is not None:
        remedy = f"{RENAME}; otherwise leave 'estimator' out, and one is trained on the data, out of fold"
        yield _known(f"estimator {experiment.estimator}", estimator_source(experiment).labels(), wanted, remedy)


def _of_dit(name: str, wanted: set[str], stages: Sequence[Stage]) -> Finding:
    tuned = next((stage for stage in stages if stage.name == "finetune"), None)
    untuned = [s.name for s in stages if s.command == "predict" and s.config["model"]["init_args"].get("dit") == name]
    learns = tuned is not None and setting(tuned, "model", "label_table") != "keep"
    if learns and not untuned:
        return ok(f"dit {name}: fine-tuning gives its label table the classes of the data")
    methods = f" and leave out what generates before fine-tuning ({listed(untuned, 3)})" if untuned else ""
    remedy = f"{RENAME}; otherwise set finetune.model.init_args.label_table=replace{methods}"
    return _known(f"dit {name}", dit_labels(name), wanted, remedy)


def _known(model: str, known: Sequence[str] | None, wanted: set[str], remedy: str) -> Finding:
    """The classes wanted against those that a model knows."""
    if known is None:
        return warning(f"{model}: nothing here says which classes it knows", "See that they are those of the data")
    unknown = sorted(wanted - set(known))
    if unknown:
        names = listed(renamed(unknown, known))
        return problem(
            f"{model}: does not know {len(unknown)} of {len(wanted)} classes ({listed(unknown)})",
            f"Rename the folders from names to labels: {names}" if names else remedy,
        )
    return ok(f"{model}: knows all {len(wanted)} classes by their labels")
