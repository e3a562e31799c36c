"""How the student is made from the pool: targets, schedules and made-up rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dynens.config.base import FrozenConfig

ScheduleKind = Literal["constant", "linear", "halving", "step", "adaptive"]
AugmentationKind = Literal[
    "field_swap",
    "entity_swap",
    "field_mask",
    "cutmix",
    "feature_noise",
    "id_dropout",
    "unlabelled",
]


class ScheduleConfig(FrozenConfig):
    """A value over the run.

    Attributes:
        kind: `constant`; `linear` from start to end over the run; `halving` from start down to
            end, halved every `every_epochs`; `step` jumps from start to end after `every_epochs`;
            `adaptive` (temperatures only) from start for rows of which the teacher is certain to
            end for those of which it knows nothing.
        start: value at the beginning.
        end: value at the end (ignored by `constant`).
        every_epochs: epochs between halvings, or before the step.
    """

    kind: ScheduleKind = "constant"
    start: float = 1.0
    end: float = 1.0
    every_epochs: float = Field(default=10.0, gt=0)


class AugmentationConfig(FrozenConfig):
    """One source of rows without a click label; the teacher labels them.

    Attributes:
        kind: a key of `dynens.distill.augment.AUGMENTATIONS`: ways to make rows that were never
            logged, and `unlabelled` for the table's own training rows without a label.
        probability: per feature (per value, for id_dropout) chance of being changed.
        share: relative share of rows of this kind; of `unlabelled` where the table has as many rows
            without a label as with one, and in proportion less where it has fewer.
    """

    kind: AugmentationKind
    probability: float = Field(default=0.5, gt=0, le=1)
    share: float = Field(default=1.0, gt=0)


class HintsConfig(FrozenConfig):
    """Feature hints: the student's hidden layers predict a teacher network's.

    Attributes:
        weight: of the hint term beside the response term; 0: no hints.
        depths: `last`, the last hidden layer of either; `all`, as many as both have, paired from
            the last one down.
        noise: share of the features that are made missing, at random, in what teacher and student
            see for the hints; 0: the rows as they are.
        learner: the neural learner of the pool that gives them; None: the one with the best AUC on
            `select` rows.
    """

    weight: float = Field(default=0.0, ge=0)
    depths: Literal["last", "all"] = "last"
    noise: float = Field(default=0.0, ge=0, lt=1)
    learner: str | None = None


class MixupConfig(FrozenConfig):
    """MixUp of two rows' dense inputs and embeddings.

    Attributes:
        weight: of the mixed rows' term beside the response term; 0: no rows are mixed.
        beta: rows are mixed as λ : 1-λ with λ ~ Beta(beta, beta); small values stay near one row.
    """

    weight: float = Field(default=0.0, ge=0)
    beta: float = Field(default=0.2, gt=0)


class MemoryConfig(FrozenConfig):
    """Self-distillation from a memory of the student's own answers.

    Attributes:
        weight: of the memory's term beside the response term; 0: no memory.
        beta: share of the old memory that each visit of a row keeps.
    """

    weight: float = Field(default=0.0, ge=0)
    beta: float = Field(default=0.9, ge=0, lt=1)


class FaithfulConfig(FrozenConfig):
    """A second student that hears its teacher alone, where labels taught the first one nothing.

    Labels draw a student away from its teacher. Where these departures predict labels of `route`
    rows, which trained nothing, they are knowledge, and the first student stays. Where they do not,
    they are noise that costs AUC, and a student without them takes its place: soft labels only,
    fresher made-up rows, no shrinkage of embeddings, and a learning rate that falls to zero.

    Attributes:
        below: the first student stays if its departures predict labels by this many standard
            errors (`dynens.distill.evidence`); 0: it always stays.
        epochs: passes over the training rows, at most the student's own `optimizer.max_epochs`.
        least_steps, most_steps: optimiser steps, for which small tables are passed over more often
            and very large ones less often.
        learning_rate: at the start of its half cosine.
        reuse: as for the first student.
    """

    below: float = Field(default=3.0, ge=0)
    epochs: int = Field(default=20, ge=1)
    least_steps: int = Field(default=2500, ge=1)
    most_steps: int = Field(default=20_000, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    reuse: int = Field(default=2, ge=1)


class PeersConfig(FrozenConfig):
    """Students that train side by side, each on a Ray worker, and learn from one another's answers.

    Answers travel after every epoch, and no peer waits for an equal step of the others, so that two
    runs of one seed differ a little.

    Attributes:
        count: students that train; the one that early stopping likes best is kept. 1: none beside
            the student.
        weight: of the term that draws each to the mean of the others' latest answers.
        staleness: epochs that a peer may be ahead of any other.
    """

    count: int = Field(default=1, ge=1, le=16)
    weight: float = Field(default=0.5, gt=0)
    staleness: int = Field(default=2, ge=0)


class PruningConfig(FrozenConfig):
    """Hidden units that are cut from the trained student, and distillation to recover.

    Attributes:
        share: of every hidden layer's units that go, the least important first; 0: none.
        criterion: of importance: `taylor`, what the loss would lose to first order, or `magnitude`,
            the L1 norm of a unit's weights.
        mutual: weight of the term by which the smaller student and the whole one, which goes on
            learning beside it, teach each other; 0: the teacher alone helps it to recover.
        epochs: passes over the training rows to recover.
        learning_rate: at the start of their half cosine.
    """

    share: float = Field(default=0.0, ge=0, lt=1)
    criterion: Literal["taylor", "magnitude"] = "taylor"
    mutual: float = Field(default=0.0, ge=0)
    epochs: int = Field(default=10, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)


class QuantisationAwareConfig(FrozenConfig):
    """Further distillation of the trained student in the arithmetic of its INT8 form.

    In the first half of it weights alone are rounded, then inputs too.

    Attributes:
        weight: of the quantisation error's term, the KL of the rounding student to the float32
            student that it was; 0: the student never rounds in training.
        epochs: passes over the training rows.
        learning_rate: at the start of their half cosine.
    """

    weight: float = Field(default=0.0, ge=0)
    epochs: int = Field(default=6, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)


class DistillConfig(FrozenConfig):
    """Distillation of the student.

    Attributes:
        alpha: weight of the teacher's soft label on logged rows; the rest is the click label.
        temperature: softens both distributions; gradients are rescaled by its square.
        teacher: `pool` blends every learner's logit, `ensemble` is the serving trio, `auto`
            whichever of the two has the better AUC on `route` rows, which trained neither.
        stop_on: what ends training and picks the epoch, on `select` rows: `teacher`, the smallest
            distance to its probabilities, or `labels`, the largest AUC.
        augmented_per_row: made-up rows per logged row in every batch.
        reuse: steps that pass per chunk of newly labelled rows; each made-up row is used about as
            often.
        augmentations: how they are made; empty: none are.
        augmentations_per_row: how many of them a made-up row goes through, drawn at random by their
            shares; rows that were logged without a label stay as they are.
        follow_weakness: make more of them where the student is far from its teacher on `select`
            rows, slice by slice.
        labelling_threads: threads of the teacher that labels made-up rows beside training.
        soft_label: weight of the term that draws the student to the soft labels of a table that
            has them (`features.soft_label`).
        hints: the student's features learn a teacher network's.
        gating: the teacher weighs its members row by row, with weights learned from the labels.
        relations: weight of the relation term: rows that are alike to the teacher network of the
            hints are to be alike to the student; 0: none.
        branch_loss: of the response term: each of the student's branches has its `own`, or their
            `average` has one (a control: Allen-Zhu and Li, 2020, show why that trains like one
            network). `ema`, `memory` and `mixup` speak of the average in any case.
        diversity: weight of the term that rewards branches of the student that differ; 0: none.
        mutual: weight of the term by which the student's branches teach one another; 0: none.
        peers: students on several workers that teach one another.
        exits: weight of the term by which the student's last layer teaches an exit after each of
            its other hidden layers; the exits are not kept. 0: none.
        ema: weight of the term that draws the student to the moving average of its own weights; 0:
            none.
        memory: the student is drawn to a memory of its own answers.
        generations: students in a row, each taught by the one before; the last is served.
        assistant_width: the students before the last are this many times as wide.
        views: weight of the term that teaches the student from what describes an item alone, and
            from its id alone; for tables with an item key and further features of items. 0: none.
        mixup: further rows, mixed after the embedding lookup.
        inherit: the student has what the pool's autorec and bmf say as an input.
        guard: largest share of `alpha` that a logged row loses where the teacher is confidently
            wrong; 0: none.
        faithful: a second student without labels, where they taught the first one nothing.
        pruning: a smaller student, cut from the trained one.
        quantisation_aware: the trained student learns to live with INT8; with `ensemble.int8`.
    """

    alpha: ScheduleConfig = ScheduleConfig(start=0.7)
    temperature: ScheduleConfig = ScheduleConfig(start=1.0)
    teacher: Literal["auto", "pool", "ensemble"] = "auto"
    stop_on: Literal["teacher", "labels"] = "teacher"
    augmented_per_row: float = Field(default=1.0, ge=0, le=16)
    reuse: int = Field(default=8, ge=1)
    augmentations: tuple[AugmentationConfig, ...] = (
        AugmentationConfig(kind="cutmix"),
        AugmentationConfig(kind="entity_swap"),
        AugmentationConfig(kind="unlabelled"),
    )
    augmentations_per_row: int = Field(default=1, ge=1, le=4)
    follow_weakness: bool = False
    labelling_threads: int = Field(default=1, ge=1)
    soft_label: float = Field(default=0.5, ge=0)
    hints: HintsConfig = HintsConfig()
    gating: bool = False
    relations: float = Field(default=0.0, ge=0)
    branch_loss: Literal["own", "average"] = "own"
    diversity: float = Field(default=0.0, ge=0)
    mutual: float = Field(default=0.0, ge=0)
    peers: PeersConfig = PeersConfig()
    exits: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0)
    memory: MemoryConfig = MemoryConfig()
    generations: int = Field(default=1, ge=1, le=8)
    assistant_width: float = Field(default=1.0, ge=1, le=16)
    views: float = Field(default=0.0, ge=0)
    inherit: bool = True
    mixup: MixupConfig = MixupConfig()
    guard: float = Field(default=0.0, ge=0, le=1)
    faithful: FaithfulConfig = FaithfulConfig()
    pruning: PruningConfig = PruningConfig()
    quantisation_aware: QuantisationAwareConfig = QuantisationAwareConfig()

    @model_validator(mode="after")
    def _check(self) -> DistillConfig:
        for end in (self.alpha.start, self.alpha.end):
            if not 0 <= end <= 1:
                raise ValueError(f"alpha {end} must lie in [0, 1]")
        if self.alpha.kind == "adaptive":
            raise ValueError("alpha.kind is adaptive, which only a temperature can be; see guard")
        for end in (self.temperature.start, self.temperature.end):
            if end <= 0:
                raise ValueError(f"temperature {end} must be positive")
        if self.hints.learner is not None and not self.needs_teacher_features:
            raise ValueError(
                f"hints.learner is {self.hints.learner!r} but hints.weight and relations are 0; "
                "give a weight"
            )
        if self.hints.weight == 0 and (self.hints.depths == "all" or self.hints.noise > 0):
            raise ValueError("hints.depths or hints.noise is given but hints.weight is 0; raise it")
        if self.assistant_width > 1 and self.generations == 1:
            raise ValueError(
                f"assistant_width is {self.assistant_width} but generations is 1, so there is no "
                "assistant; raise generations"
            )
        if self.peers.count > 1 and self.generations > 1:
            raise ValueError(
                f"peers.count is {self.peers.count} and generations is {self.generations}; peers "
                "have one generation, so set one of the two to 1"
            )
        if self.follow_weakness and not (self.makes_rows and self.stop_on == "teacher"):
            raise ValueError(
                "follow_weakness is on but no rows are made up, or stop_on is labels, so that no "
                "teacher is asked about validation rows; set augmented_per_row and stop_on"
            )
        if self.guard > 0 and not self.softens_labels:
            raise ValueError(
                f"guard is {self.guard} but alpha is 0, so logged rows have no soft label to "
                "guard; raise alpha"
            )
        if self.gating and not (self.softens_labels or self.makes_rows or self.mixup.weight > 0):
            raise ValueError(
                "gating is on but alpha is 0 and no rows are made up, so nothing is learned from "
                "the teacher; raise alpha"
            )
        return self

    def without_unlabelled(self) -> DistillConfig:
        """The same for a table whose training rows all have a label."""
        kept = tuple(a for a in self.augmentations if a.kind != "unlabelled")
        return self.model_copy(update={"augmentations": kept})

    @property
    def softens_labels(self) -> bool:
        """Whether the teacher's soft label ever counts on logged rows."""
        return self.alpha.start > 0 or (self.alpha.kind != "constant" and self.alpha.end > 0)

    @property
    def needs_teacher_features(self) -> bool:
        """Whether a term reads hidden layers of a teacher network."""
        return self.hints.weight > 0 or self.relations > 0

    @property
    def may_be_faithful(self) -> bool:
        """Whether a second student comes into question: the first one heard labels beside a
        teacher that can teach alone."""
        hears_both = self.softens_labels and self.hears_labels
        return self.faithful.below > 0 and hears_both and self.generations == 1 and not self.gating

    @property
    def hears_labels(self) -> bool:
        """Whether the click labels of logged rows ever count."""
        falls = self.alpha.kind != "constant" and self.alpha.end < 1
        return self.alpha.start < 1 or falls or self.guard > 0

    @property
    def makes_rows(self) -> bool:
        return self.augmented_per_row > 0 and bool(self.augmentations)
