"""What the student takes over from the pool as it is: products of users' and items' vectors."""

from __future__ import annotations

from dynens.batch import FeatureLayout
from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig
from dynens.ensemble.blend import Blend
from dynens.errors import ConfigError
from dynens.layers.products import Table, added
from dynens.models.pairs import LONGEST_PRODUCT, PairLearner
from dynens.models.registry import MODELS, load_learner
from dynens.run import RunDirectory


def inherited_from(config: RunConfig, layout: FeatureLayout) -> dict[str, int]:
    """The pool's learners whose products of vectors the student takes over, and their lengths."""
    pair = layout.largest_pair(config.student.fields)
    if pair is None or not config.distill.inherit:
        return {}
    widths = {}
    for name, learner in config.learners.items():
        if learner.is_pair and pair == layout.largest_pair(learner.fields):
            model = MODELS[learner.model]
            assert issubclass(model, PairLearner)
            widths[name] = model.product_width(pair, learner)
    return widths


def with_inheritance(config: RunConfig, layout: FeatureLayout) -> LearnerConfig:
    """The student as configured, with room for what it takes over from the pool."""
    width = min(sum(inherited_from(config, layout).values()), LONGEST_PRODUCT)
    return config.student.model_copy(update={"product_width": width})


def inherited_tables(
    run: RunDirectory, config: RunConfig, layout: FeatureLayout, teacher: Blend, width: int
) -> tuple[Table, Table]:
    """Tables whose product is these learners' part of the teacher's logit, as a weighted mean.

    What other fields add to it is left to the student, which has these fields.

    Raises:
        ConfigError: there is nothing to take over.
    """
    names = inherited_from(config, layout)
    if not names:
        raise ConfigError(
            f"student.product_width is {width} but there is no learner whose vectors the student "
            "could take over; set it to 0."
        )
    weights = [max(teacher.weights.get(name, 0.0), 0.0) for name in names]
    total = sum(weights)
    weights = [weight / total if total else 1 / len(names) for weight in weights]
    tables = []
    for name in names:
        learner = load_learner(run.learner(name))
        assert isinstance(learner, PairLearner)
        tables.append(learner.tables())
    return added(tables, weights, width)
