"""The configuration of a run: everything `dynens fit` can be told, with its defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dynens.batch import FeatureLayout
from dynens.config.base import FrozenConfig, load_yaml, merged, validate_overridden
from dynens.config.distill import DistillConfig
from dynens.config.learner import LearnerConfig
from dynens.config.pool import default_learners, default_student, why_unsuited
from dynens.config.serving import ServingConfig
from dynens.errors import ConfigError

WeightMethod = Literal["uniform", "greedy", "bayes", "stacking"]
CalibrationMethod = Literal["platt", "temperature", "auto"]
DifficultyName = Literal[
    "margin",
    "entropy",
    "predicted_gap",
    "predicted_auc_gain",
    "loss_reduction",
    "disagreement",
    "rarity",
    "random",
]
_MAX_SEED = 2**32 - 1  # NumPy's RandomState, which optuna draws from, takes no larger one
_LEARNER_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class EnsembleConfig(FrozenConfig):
    """The static ensemble that serves hard rows.

    Attributes:
        size: members.
        cost_cap_us_per_row: largest summed cost of the members at 100 rows; None: no cap.
        weight_methods: compared out of fold; the simplest within noise of the best is used.
        int8: "auto" serves each network in INT8 where validation AUC falls by less than 0.0002
            and 100 rows take at least 5 % less time on the training machine. As that is measured,
            two runs with one seed may differ.
        calibration: of every system's logit, on `route` rows; `auto` compares temperature and Platt
            by cross-fitted logloss and takes the simpler within noise.
    """

    size: int = Field(default=3, ge=1, le=8)
    cost_cap_us_per_row: float | None = Field(default=None, gt=0)
    weight_methods: tuple[WeightMethod, ...] = Field(
        default=("uniform", "greedy", "bayes", "stacking"), min_length=1
    )
    int8: Literal["off", "auto"] = "off"
    calibration: CalibrationMethod = "platt"

    @field_validator("int8", mode="before")
    @classmethod
    def _off(cls, given: object) -> object:
        return "off" if given is False else given  # what YAML makes of an off without quotes


class StudentSearchConfig(FrozenConfig):
    """A search for the student's architecture and training under its latency cap.

    Attributes:
        trials: students that are tried, each trained for a few epochs on the pool's answers; 0: no
            search, the first of a few fixed candidates that keeps the cap.
        method: `bayesian` (a tree-structured Parzen estimator) or `genetic` (selection, crossover
            and mutation).
        epochs: passes over the training rows in a trial.
    """

    trials: int = Field(default=0, ge=0, le=1000)
    method: Literal["bayesian", "genetic"] = "bayesian"
    epochs: int = Field(default=3, ge=1)


class RouterConfig(FrozenConfig):
    """Which rows are hard.

    Attributes:
        difficulties: scores compared on validation rows by AUC at small hard fractions; a later
            one must beat an earlier one clearly.
        max_hard_fraction: the threshold rule never goes beyond it on validation rows (a little
            below the 0.30 that is promised, as later rows may be harder); where they are few, it
            stays a little further below.
        tolerance_auc: AUC by which the routed system may stay below the static trio, that hard rows
            must add to the student alone, and further ones where it cannot reach the trio.
        hard_fraction: take exactly this fraction instead of the rule.
        mean_cost_us_per_row: take the fraction that costs this much on average instead, in
            requests of 100 candidates whose graphs run on one thread of the training machine.
        select_share: share of the validation rows that choose and stop; the rest fit the router.
    """

    difficulties: tuple[DifficultyName, ...] = (
        "predicted_auc_gain",
        "margin",
    )
    max_hard_fraction: float = Field(default=0.28, ge=0, le=1)
    tolerance_auc: float = Field(default=1e-4, ge=0)
    hard_fraction: float | None = Field(default=None, ge=0, le=1)
    mean_cost_us_per_row: float | None = Field(default=None, gt=0)
    select_share: float = Field(default=0.5, gt=0, lt=1)

    @property
    def is_told(self) -> bool:
        """Whether the fraction is given instead of chosen."""
        return self.hard_fraction is not None or self.mean_cost_us_per_row is not None

    @model_validator(mode="after")
    def _check(self) -> RouterConfig:
        if not self.difficulties:
            raise ValueError("difficulties is empty; name at least one score")
        if self.hard_fraction is not None and self.mean_cost_us_per_row is not None:
            raise ValueError(
                f"hard_fraction {self.hard_fraction} and mean_cost_us_per_row "
                f"{self.mean_cost_us_per_row} are both given; give one of them"
            )
        return self


class RayConfig(FrozenConfig):
    """Where training runs.

    Attributes:
        address: of an existing cluster; None starts one on this machine and stops it at the end.
        num_cpus: cores of a started cluster; None: every core of the machine.
        max_retries: times a stage whose worker died is started again from its checkpoint.
        data_workers: files that are prepared side by side, by Ray Data where it is more than one;
            the run's folder must then be visible to all machines of a cluster.
        net_workers: Ray workers that train each neural learner of the pool together, over embedding
            tables that lie on one of them each; trees, baseline and student stay in one process.
    """

    address: str | None = None
    num_cpus: int | None = Field(default=None, ge=1)
    max_retries: int = Field(default=3, ge=0)
    data_workers: int = Field(default=1, ge=1)
    net_workers: int = Field(default=1, ge=1)


class ReportConfig(FrozenConfig):
    """Evaluation and report.

    Attributes:
        bootstrap_draws: resamples behind every interval.
        random_route_draws: draws of random routing that are averaged.
        cost_repeats: timed repeats of 100 rows behind every cost; the median counts.
    """

    bootstrap_draws: int = Field(default=200, ge=20)
    random_route_draws: int = Field(default=20, ge=1)
    cost_repeats: int = Field(default=50, ge=5)


class RunConfig(FrozenConfig):
    """One run of `dynens fit`, apart from the data it is given.

    Attributes:
        seed: of everything random.
        learners: the pool; at least `ensemble.size` of them. A name is a folder of the run.
        student: the student's architecture (a neural model, or "auto"); the baseline shares it.
            Keys that are not given keep the default student's values.
        student_cap_us_per_row: cost that "auto" and a search keep to where they can: ONNX Runtime,
            one thread, 100 candidates of one request, other ones in each repeat.
        student_search: a search for a better student under that cap.
        refit: whether everything is trained a second time, on training and validation rows, once
            validation has settled epochs, members, weights, calibration and threshold. "auto":
            where rows are cut by time and no validation table is given, as the rows nearest to
            those to come would train nothing otherwise.
        time_limit_min: minutes that `fit` may take, for which trainings end early; None: no limit.
            A run that goes on may have another one.
    """

    seed: int = Field(default=1, ge=0, le=_MAX_SEED)
    learners: dict[str, LearnerConfig] = Field(default_factory=default_learners)
    ensemble: EnsembleConfig = EnsembleConfig()
    student: LearnerConfig = Field(default_factory=default_student)
    student_cap_us_per_row: float = Field(default=3.0, gt=0)
    student_search: StudentSearchConfig = StudentSearchConfig()
    distill: DistillConfig = DistillConfig()
    router: RouterConfig = RouterConfig()
    serving: ServingConfig = ServingConfig()
    refit: Literal["auto"] | bool = "auto"
    time_limit_min: float | None = Field(default=None, gt=0)
    report: ReportConfig = ReportConfig()
    ray: RayConfig = RayConfig()

    @field_validator("student", mode="before")
    @classmethod
    def _over_the_default(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return merged(default_student().model_dump(), given)

    def unsuited(self, num_rows: int, layout: FeatureLayout) -> dict[str, str]:
        """Why, by name, learners are not meant for a table; arguments as for `for_table`."""
        reasons = {n: why_unsuited(c, num_rows, layout) for n, c in self.learners.items()}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def for_table(self, num_rows: int, layout: FeatureLayout) -> RunConfig:
        """The same without the learners that are not meant for a table.

        Args:
            num_rows: its (informative) training rows.
            layout: its fields.

        Raises:
            ConfigError: hints are asked of one of them, or fewer are left than the ensemble has
                members.
        """
        unsuited = self.unsuited(num_rows, layout)
        kept = {name: c for name, c in self.learners.items() if name not in unsuited}
        if len(kept) < self.ensemble.size:
            left_out = ", ".join(unsuited)
            raise ConfigError(
                f"learners has {len(kept)} entries that suit the table's {num_rows} rows and "
                f"{len(layout.fields)} sparse fields ({left_out} are left out by their max_rows, "
                f"max_fields or min_rows_per_id), and ensemble.size is {self.ensemble.size}; ask "
                "for fewer members or raise these limits."
            )
        config = self.model_copy(update={"learners": kept})
        try:
            config._check_hints()
        except ValueError as e:
            raise ConfigError(
                f"{e} (learners whose max_rows is below the table's {num_rows}, whose max_fields "
                f"is below its {len(layout.fields)}, or whose min_rows_per_id is not reached, are "
                "left out)."
            ) from e
        return config

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        always = [name for name, c in self.learners.items() if c.suits_every_table]
        if len(always) < self.ensemble.size:
            raise ValueError(
                f"learners has {len(always)} entries for every table and ensemble.size "
                f"is {self.ensemble.size}; add learners or ask for fewer members"
            )
        if not self.student.is_neural:
            raise ValueError(
                f"student.model is {self.student.model}; the student must be a neural model"
            )
        if self.student.optimizer.snapshots > 1:
            raise ValueError(
                f"student.optimizer.snapshots is {self.student.optimizer.snapshots}; the student "
                "is served as one network, so set it to 0"
            )
        undecided = [name for name, learner in self.learners.items() if learner.model == "auto"]
        if undecided:
            raise ValueError(
                f"learners.{undecided[0]}.model is auto, which is for the student; name a model"
            )
        multiplying = [name for name, learner in self.learners.items() if learner.product_width]
        if multiplying:
            raise ValueError(
                f"learners.{multiplying[0]}.product_width is "
                f"{self.learners[multiplying[0]].product_width}; only the student takes over "
                "vectors, so set it to 0"
            )
        reserved = {"student", "baseline"} & set(self.learners)
        if reserved:
            raise ValueError(f"learners uses the reserved name {min(reserved)!r}; rename it")
        odd = [name for name in self.learners if not _LEARNER_NAME.fullmatch(name)]
        if odd:
            raise ValueError(
                f"learners uses the name {odd[0]!r}; a name is 1 to 64 letters, digits, _ and -"
            )
        self._check_hints()
        self._check_gating()
        self._check_branches()
        self._check_exits()
        self._check_compression()
        if self.refit is True and (reason := self.why_no_refit()):
            raise ValueError(f"refit is true but {reason}; set it to false or leave that out")
        return self

    def why_no_refit(self) -> str | None:
        """The setting whose training no second one can follow; None: there is none."""
        distill = self.distill
        asked = {
            f"distill.generations is {distill.generations}": distill.generations > 1,
            f"distill.peers.count is {distill.peers.count}": distill.peers.count > 1,
            f"distill.pruning.share is {distill.pruning.share}": distill.pruning.share > 0,
            f"distill.quantisation_aware.weight is {distill.quantisation_aware.weight}": (
                distill.quantisation_aware.weight > 0
            ),
        }
        return next((setting for setting, is_asked in asked.items() if is_asked), None)

    def _check_branches(self) -> None:
        distill = self.distill
        asked = {"diversity": distill.diversity > 0, "mutual": distill.mutual > 0}
        asked["branch_loss"] = distill.branch_loss != "own"
        for name in (n for n, is_asked in asked.items() if is_asked):
            if self.student.branches == 1:
                raise ValueError(
                    f"distill.{name} is {getattr(distill, name)} but student.branches is 1; "
                    "give the student two branches or more"
                )

    def _check_exits(self) -> None:
        model, units = self.student.model, list(self.student.hidden_units)
        if self.distill.exits > 0 and (len(units) < 2 or model in ("lr", "fm")):
            raise ValueError(
                f"distill.exits is {self.distill.exits} but a student of model {model} with "
                f"hidden_units {units} has a single hidden layer, so nothing lies below its last; "
                "give a perceptron two or more"
            )

    def _check_compression(self) -> None:
        distill, student = self.distill, self.student
        asked = {
            f"pruning.share is {distill.pruning.share}": distill.pruning.share > 0,
            f"quantisation_aware.weight is {distill.quantisation_aware.weight}": (
                distill.quantisation_aware.weight > 0
            ),
        }
        for setting in (s for s, is_asked in asked.items() if is_asked):
            is_perceptron = student.model in ("dnn", "ipnn", "auto") and student.hidden_units
            if not is_perceptron or student.random_features:
                raise ValueError(
                    f"distill.{setting} but a student of model {student.model} with hidden_units "
                    f"{list(student.hidden_units)} is no perceptron whose layers are trained; "
                    "use dnn or ipnn with hidden layers and without random_features"
                )
            if student.model == "auto" and self.student_search.trials:
                raise ValueError(
                    f"distill.{setting} but student.model is auto and student_search.trials is "
                    f"{self.student_search.trials}, which may find another kind; name dnn or ipnn"
                )
        if distill.pruning.share > 0 and student.branches > 1:
            raise ValueError(
                f"distill.pruning.share is {distill.pruning.share} but student.branches is "
                f"{student.branches}; only a student of one branch is pruned"
            )
        if distill.quantisation_aware.weight > 0 and self.ensemble.int8 == "off":
            raise ValueError(
                f"distill.quantisation_aware.weight is {distill.quantisation_aware.weight} but "
                "ensemble.int8 is off, so no INT8 student would be served; set it to auto"
            )

    def _check_hints(self) -> None:
        hints = self.distill.hints
        if not self.distill.needs_teacher_features:
            return
        neural = [name for name, c in self.learners.items() if c.is_neural]
        if not neural:
            asked = f"hints.weight is {hints.weight}"
            if hints.weight == 0:
                asked = f"relations is {self.distill.relations}"
            models = " or ".join(sorted({c.model for c in self.learners.values()}))
            raise ValueError(
                f"distill.{asked} but every learner is {models}, which have no hidden layers over "
                "a row's features; add a network"
            )
        if hints.learner is not None and hints.learner not in neural:
            named = self.learners.get(hints.learner)
            kind = "no learner of the pool" if named is None else f"no network but {named.model}"
            raise ValueError(
                f"distill.hints.learner is {hints.learner!r}, which is {kind}; "
                f"name one of {', '.join(neural)}"
            )

    def _check_gating(self) -> None:
        whole_pool = self.distill.teacher != "ensemble"
        if self.distill.gating and (len(self.learners) if whole_pool else self.ensemble.size) == 1:
            key = "learners has one entry" if whole_pool else "ensemble.size is 1"
            raise ValueError(
                f"distill.gating is on but {key}; gating needs two members of the teacher"
            )


def load_run_config(
    path: Path | None, settings: list[str], given: Mapping[str, Any] | None = None
) -> RunConfig:
    """The run configuration from defaults, a YAML file and `A.B=C` settings, in that order.

    Args:
        path: the file, if there is one. Its learners, if it has any, are all there are.
        settings: laid over it.
        given: the configuration of another run, to start from instead of the defaults.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong.
    """
    data = load_yaml(path) if path else {}
    if given is not None:
        data = merged({k: v for k, v in given.items() if k != "learners" or k not in data}, data)
    data.setdefault("learners", {n: c.model_dump() for n, c in default_learners().items()})
    return validate_overridden(RunConfig, data, settings, str(path) if path else "settings")
