"""Configuration of one base learner. Every default is meant to be good on any table.

`None` means "chosen from the table": `dynens/models/defaults.py` holds the rules, and
docs/LEARNERS.md what they were fitted on.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dynens.config.base import FrozenConfig

ModelName = Literal[
    "lr",
    "fm",
    "dnn",
    "deepfm",
    "dcnv2",
    "ipnn",
    "masknet",
    "finalmlp",
    "autorec",
    "bmf",
    "xgboost",
    "auto",
]
"""A key of `dynens.models.registry.MODELS`, or "auto" (for the student only)."""
Precision = Literal["auto", "fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
Pooling = Literal["sum", "mean"]
_PAIRS = ("autorec", "bmf")
_NO_NETWORKS = ("xgboost", *_PAIRS)
_BRANCHING = ("dnn", "ipnn", "auto")


class OptimizerConfig(FrozenConfig):
    """How a neural learner is trained. Ignored by xgboost."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam step size at the start."""
    batch_size: int | None = Field(default=None, ge=8)
    """Rows per step; None: 1024, less on small tables and more on large ones."""
    max_epochs: int = Field(default=40, ge=1)
    evaluations_per_epoch: int = Field(default=1, ge=1)
    """Validation points per epoch; more of them catch an early optimum on large tables."""
    patience: int = Field(default=2, ge=1)
    """Validation points without a better AUC before the learning rate falls."""
    decay_factor: float = Field(default=0.1, gt=0, lt=1)
    """The learning rate is multiplied by this on a plateau."""
    max_decays: int = Field(default=1, ge=0)
    """Plateaus survived; the next one ends training."""
    restart_from_best: bool = True
    """Go back to the best weights when the learning rate falls."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """How the learning rate falls: on plateaus, which end training, or along half a cosine to zero
    over `max_epochs`, all of which run."""
    embedding_l2: float | None = Field(default=None, ge=0)
    """λ of ½λ‖W‖² on the embedding tables; None: scaled to the table."""
    dense_l2: float = Field(default=0.0, ge=0)
    """λ of ½λ‖W‖² on every other weight."""
    clip_norm: float = Field(default=10.0, gt=0)
    """Largest L2 norm of the whole gradient."""
    embedding_optimizer: Literal["auto", "adam", "lazy_adam"] = "auto"
    """Lazy Adam touches only the rows of the batch; auto: above 20 million weights."""
    embedding_rate_factor: float | None = Field(default=None, gt=0)
    """The embedding tables' learning rate over that of all other weights; None: from the table."""
    ema_decay: float | None = Field(default=None, ge=0, lt=1)
    """Validate and keep an exponential moving average of the weights with this decay a step; 0:
    the weights themselves; None: an average over about two epochs, at most 1000 steps."""
    snapshots: int = Field(default=0, ge=0)
    """Members of a snapshot ensemble (cyclic cosine learning rate); 0 or 1: an ordinary run."""
    epochs_per_snapshot: int = Field(default=3, ge=1)
    precision: Precision = "auto"
    """Arithmetic of the training step; auto: bf16 on a CPU that is clearly faster in it, decided
    once in a run."""


class TreesConfig(FrozenConfig):
    """Gradient-boosted trees. Ignored by the neural learners."""

    num_trees: int = Field(default=300, ge=1, le=5000)
    """Upper limit; early stopping may use fewer. 300 cost about 1 ms for 100 rows."""
    max_depth: int | None = Field(default=None, ge=1, le=12)
    """None: 6, or 4 on small tables."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """None: 0.1, or 0.05 on small tables."""
    min_child_weight: float | None = Field(default=None, ge=0)
    """Least sum of p(1-p) in a leaf; None: scaled to the table."""
    subsample: float = Field(default=0.8, gt=0, le=1)
    colsample_bytree: float = Field(default=0.8, gt=0, le=1)
    reg_lambda: float = Field(default=5.0, ge=0)
    early_stopping_rounds: int | None = Field(default=None, ge=1)
    """Trees without a better validation AUC that end training; None: 30, or 50 on small tables."""


class GibbsConfig(FrozenConfig):
    """How a Bayesian matrix factorisation (bmf) is sampled. Ignored by the others."""

    sweeps: int = Field(default=160, ge=1, le=10_000)
    """Times that all vectors are drawn, at most."""
    burn_in: int = Field(default=20, ge=0)
    """First sweeps, which do not count."""
    side_dim: int = Field(default=128, ge=0, le=1024)
    """Numbers that tell what an id has met; 0: nothing is told."""

    @model_validator(mode="after")
    def _check(self) -> GibbsConfig:
        if self.burn_in >= self.sweeps:
            raise ValueError(f"burn_in is {self.burn_in} and must be below sweeps, {self.sweeps}")
        return self


class LearnerConfig(FrozenConfig):
    """One base learner of the pool."""

    model: ModelName = "dnn"
    name: str = ""
    """Name in run directories and reports; empty: the model's."""
    embedding_dim: int = Field(default=16, ge=1, le=512)
    embedding_std: float | None = Field(default=None, gt=0)
    """Deviation of the embeddings at the start; None: scaled to the table."""
    list_pooling: Pooling | None = None
    """What a network is given of a list: the sum of its values' embeddings or their mean; None: by
    the table."""
    hidden_units: tuple[int, ...] = (256, 128, 64)
    """Widths of the hidden layers, from the input up."""
    branches: int = Field(default=1, ge=1, le=16)
    """Perceptrons side by side over the same embeddings (dnn and ipnn), or pairs of autoencoders
    (autorec), each with a loss of its own; their logits are averaged."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropped share of hidden units; None: scaled to the table."""
    embedding_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropped share of the embeddings' components."""
    cross_layers: int = Field(default=3, ge=1)
    """Cross layers of dcnv2."""
    mask_blocks: int = Field(default=3, ge=1)
    """Parallel mask blocks of masknet."""
    fusion_heads: int = Field(default=2, ge=1)
    """Heads of finalmlp's bilinear fusion."""
    rank: int | None = Field(default=None, ge=0)
    """Rank of dcnv2's cross matrices and finalmlp's gates; 0: full; None: 64 on wide tables."""
    use_stats: bool | None = None
    """Give neural learners the target and count encodings as further dense inputs; None: where
    ids have few rows."""
    product_width: int = Field(default=0, ge=0)
    """Length of two vectors, looked up by the two fields with the most ids, whose product is one
    more input of a network; 0: none. A run sets it for the student where the pool has autorec or
    bmf, whose vectors it takes over."""
    fields: tuple[str, ...] | None = None
    """Names of the features to use (a diversity knob); None: all."""
    bootstrap: bool = False
    """Train on rows drawn with replacement (a diversity knob)."""
    random_features: bool = False
    """Train the last layer of a dnn only, over embeddings and hidden layers as they were drawn (a
    control: linear models of random features, whose ensembles cannot be distilled)."""
    max_rows: int | None = Field(default=None, ge=1)
    """Leave the learner out where more (informative) rows train; None: it always trains."""
    min_rows_per_id: float | None = Field(default=None, gt=0)
    """Leave the learner out where fewer (informative) rows train for each id of the two
    fields of autorec and bmf, or these have no two hundred ids each; None: it always trains."""
    max_fields: int | None = Field(default=None, ge=1)
    """Leave the learner out where it would have more sparse fields; None: it always trains."""
    num_threads: int = Field(default=1, ge=1)
    """CPU threads of one learner; learners run side by side."""
    device: Device = "auto"
    """Where it trains; auto: on the GPU where there is one. Trees, labelling and everything that is
    served run on the CPU."""
    optimizer: OptimizerConfig = OptimizerConfig()
    trees: TreesConfig = TreesConfig()
    gibbs: GibbsConfig = GibbsConfig()

    @property
    def is_neural(self) -> bool:
        """Whether it is a network over rows of features, as the student is."""
        return self.model not in _NO_NETWORKS

    @property
    def is_pair(self) -> bool:
        """Whether its logit is a product of two looked-up vectors."""
        return self.model in _PAIRS

    @property
    def suits_every_table(self) -> bool:
        """Whether no table leaves it out, but for very wide ones (`max_fields`)."""
        return self.max_rows is None and self.min_rows_per_id is None

    @property
    def display_name(self) -> str:
        return self.name or self.model

    @model_validator(mode="after")
    def _check(self) -> LearnerConfig:
        if any(units < 1 for units in self.hidden_units):
            raise ValueError(f"hidden_units {list(self.hidden_units)} must all be positive")
        if self.model in ("finalmlp", "masknet") and not self.hidden_units:
            raise ValueError(f"hidden_units is empty but model is {self.model}; give one or more")
        if self.model == "finalmlp":
            last, heads = self.hidden_units[-1], self.fusion_heads
            if last % heads:
                raise ValueError(
                    f"the last of hidden_units, {last}, must be a multiple of fusion_heads, {heads}"
                )
        can_branch = self.model == "autorec" or (self.model in _BRANCHING and self.hidden_units)
        if self.branches > 1 and not can_branch:
            raise ValueError(
                f"branches is {self.branches} but model is {self.model} with hidden_units "
                f"{list(self.hidden_units)}; only {' and '.join(_BRANCHING[:2])} with hidden "
                "layers, and autorec, can have more than one"
            )
        if self.random_features and (self.model != "dnn" or not self.hidden_units):
            raise ValueError(
                f"random_features is on but model is {self.model} with hidden_units "
                f"{list(self.hidden_units)}; only a dnn with hidden layers has them"
            )
        if self.optimizer.schedule == "cosine" and self.optimizer.snapshots > 1:
            raise ValueError(
                f"optimizer.schedule is cosine but snapshots is {self.optimizer.snapshots}, which "
                "have cosines of their own; use plateau, or no snapshots"
            )
        if not self.is_neural and self.optimizer.snapshots > 1:
            raise ValueError(
                f"optimizer.snapshots is {self.optimizer.snapshots} but model is {self.model}; "
                "snapshots need a neural model"
            )
        return self
