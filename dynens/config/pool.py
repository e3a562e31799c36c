"""The learners of a run that names none, and which of them a table is meant for."""

from __future__ import annotations

from dynens.batch import FeatureLayout
from dynens.config.learner import LearnerConfig, OptimizerConfig

# Autorec and bmf tell labels of one user and item by those of others alike: there must be some.
_FEWEST_IDS, _ROWS_PER_ID = 200, 15
# ipnn has an input for every pair of fields: 20,000 here, with five million weights behind them.
_MOST_MULTIPLIED = 200


def default_student() -> LearnerConfig:
    """A small network, whose kind and size `student_cap_us_per_row` settles."""
    return LearnerConfig(
        model="auto",
        name="student",
        embedding_dim=16,
        hidden_units=(128, 64),
        dropout=0.0,
        optimizer=OptimizerConfig(max_epochs=40),
    )


def default_learners() -> dict[str, LearnerConfig]:
    """Three nets of different structure and trees: diversity beats tuning one model.

    Where users and items have rows enough to be known by their labels, autoencoders and a Bayesian
    factorisation of these join them, and on small tables logistic regression, as little else can be
    learned there. Of very wide tables nobody multiplies all pairs of fields. They start in this
    order, so the slowest stands first.
    """
    return {
        "autorec": LearnerConfig(
            model="autorec",
            embedding_dim=256,
            branches=2,
            min_rows_per_id=_ROWS_PER_ID,
            optimizer=OptimizerConfig(learning_rate=0.01),
        ),
        "bmf": LearnerConfig(model="bmf", embedding_dim=32, min_rows_per_id=_ROWS_PER_ID),
        "finalmlp": LearnerConfig(model="finalmlp"),
        "dcnv2": LearnerConfig(model="dcnv2"),
        "ipnn": LearnerConfig(model="ipnn", max_fields=_MOST_MULTIPLIED),
        "xgboost": LearnerConfig(model="xgboost"),
        "lr": LearnerConfig(
            model="lr",
            max_rows=40_000,
            use_stats=True,
            optimizer=OptimizerConfig(learning_rate=0.01, embedding_rate_factor=1.0),
        ),
    }


def why_unsuited(learner: LearnerConfig, num_rows: int, layout: FeatureLayout) -> str | None:
    """Why a learner is not meant for a table of so many (informative) rows and these fields.

    None: it is.
    """
    if learner.max_rows is not None and num_rows > learner.max_rows:
        return f"the table is worth {num_rows:,} rows and max_rows is {learner.max_rows:,}"
    num_fields = len(layout.fields if learner.fields is None else learner.fields)
    if learner.max_fields is not None and num_fields > learner.max_fields:
        return f"the table has {num_fields} sparse fields and max_fields is {learner.max_fields}"
    if learner.min_rows_per_id is None:
        return None
    pair = layout.largest_pair(learner.fields) if layout.has_context else None
    if pair is None or min(pair.sizes) < _FEWEST_IDS:
        return f"the table has no keys of users and items with {_FEWEST_IDS} values each"
    per_id, least = num_rows / max(pair.sizes), learner.min_rows_per_id
    if per_id < least:
        return f"users or items have {per_id:.1f} rows each and min_rows_per_id is {least:g}"
    return None
