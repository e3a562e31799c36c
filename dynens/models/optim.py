"""Optimiser, learning-rate schedule and arithmetic, shared by learners and distillation."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dynens.config.learner import LearnerConfig, OptimizerConfig, Precision
from dynens.errors import TrainingError
from dynens.models.network import CTRNetwork

Decision = Literal["improved", "wait", "decay", "stop"]
# Smaller gains in AUC than this are noise of the last bits, not progress.
_MIN_GAIN = 1e-5
_CLEARLY_LESS = 0.8
_RATE_FACTOR = "rate_factor"  # of a parameter group


def build_optimizer(network: CTRNetwork, config: LearnerConfig) -> torch.optim.Optimizer:
    """Adam with one L2 for the embedding tables and another for everything else.

    `config` must be resolved (`dynens.models.defaults.resolve_config`). The L2 is part of the
    gradient (not decoupled), so that embeddings of rare ids shrink towards zero.
    """
    options = config.optimizer
    owned = {id(p) for p in network.embeddings.parameters()}
    tables = [p for p in network.embeddings.parameters() if p.requires_grad]
    dense = [p for p in network.parameters() if id(p) not in owned and p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": dense, "weight_decay": options.dense_l2}]
    if tables and options.embedding_optimizer == "lazy_adam":
        return LazyAdam(groups, options, tables[0])
    if tables:
        groups.append(table_group(tables, options))
    return torch.optim.Adam(groups, lr=options.learning_rate, fused=True)


def table_group(tables: list[nn.Parameter], options: OptimizerConfig) -> dict[str, Any]:
    """The parameter group of embedding tables, whose learning rate is a multiple of the others'."""
    factor = options.embedding_rate_factor or 1.0
    return {
        "params": tables,
        "weight_decay": options.embedding_l2 or 0.0,
        "lr": factor * options.learning_rate,
        _RATE_FACTOR: factor,
    }


class LazyAdam(torch.optim.Adam):
    """Adam that updates only those rows of a table that the batch has read.

    The table's gradient is sparse. The L2 of a row waits until it is read: where that was last so
    Δ steps ago, its gradient is

        g + λ Δ w,

    so that rare rows shrink as much as if all were updated in every step. Moments wait, too, and
    change by what was read alone.

    Args:
        groups: the parameters beside the table.
        options: learning rates and λ; the table's rate keeps its ratio to the first group's.
        table: (R, E).

    References:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
        Carpenter, "Lazy Sparse Stochastic Gradient Descent for Regularized Multinomial Logistic
        Regression", 2008 (the L2 of rows that wait).
    """

    def __init__(
        self, groups: list[dict[str, Any]], options: OptimizerConfig, table: nn.Parameter
    ) -> None:
        super().__init__(groups, lr=options.learning_rate, fused=True)
        self._table, self._l2 = table, options.embedding_l2 or 0.0
        self._rate_factor = options.embedding_rate_factor or 1.0
        self._moments = {
            "mean": torch.zeros_like(table),
            "square": torch.zeros_like(table),
            "read": torch.zeros(len(table), dtype=torch.int64, device=table.device),
            "steps": torch.zeros((), dtype=torch.int64),
        }

    def step(self, closure: Any = None) -> Any:
        """Update everything that has a gradient; the table's is taken away."""
        result = super().step(closure)
        self._moments["steps"] += 1
        if self._table.grad is not None:
            with torch.no_grad():
                self._update(self._table.grad.coalesce())
            self._table.grad = None
        return result

    def _update(self, gradient: Tensor) -> None:
        """Rows that were read, (r,) of them with (r, E) values."""
        rows, values = gradient.indices()[0], gradient.values()
        moments, steps = self._moments, int(self._moments["steps"])
        waited = (steps - moments["read"][rows]).unsqueeze(1)
        values = values + self._l2 * waited * self._table[rows]
        decays = self.defaults["betas"]
        mean, square = (
            moments[name][rows].lerp_(what, 1 - decay)
            for name, what, decay in zip(
                ("mean", "square"), (values, values.square()), decays, strict=True
            )
        )
        moments["mean"][rows], moments["square"][rows] = mean, square
        moments["read"][rows] = steps
        mean, square = (
            moment / (1 - decay**steps)
            for moment, decay in zip((mean, square), decays, strict=True)
        )
        rate = self._rate_factor * self.param_groups[0]["lr"]
        self._table[rows] -= rate * mean / (square.sqrt() + self.defaults["eps"])

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "table": self._moments}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        moments = state_dict["table"]
        self._moments = {name: moments[name].clone() for name in self._moments}
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "table"})


def scale_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] *= factor


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every parameter group this learning rate, embedding tables their multiple of it."""
    for group in optimizer.param_groups:
        group["lr"] = group.get(_RATE_FACTOR, 1.0) * learning_rate


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the first parameter group."""
    return float(optimizer.param_groups[0]["lr"])


@dataclass
class PlateauSchedule:
    """Learning rate × factor on a validation plateau; training ends after the last decay.

    `update` takes a score where higher is better. After `patience` points without a gain it
    answers "decay", and "stop" once `max_decays` decays are spent.
    """

    patience: int
    max_decays: int
    best: float = -math.inf
    waited: int = 0
    decays: int = 0

    @classmethod
    def from_config(cls, options: OptimizerConfig) -> PlateauSchedule:
        return cls(options.patience, options.max_decays)

    def update(self, score: float) -> Decision:
        if score > self.best + _MIN_GAIN:
            self.best, self.waited = score, 0
            return "improved"
        self.waited += 1
        if self.waited < self.patience:
            return "wait"
        self.waited = 0
        self.decays += 1
        return "decay" if self.decays <= self.max_decays else "stop"


class WeightAverage:
    """Exponential moving average of a network's parameters: `a ← d·a + (1 - d)·w` each step.

    The decay warms up as `min(d, (1 + t) / (10 + t))`, so that the start is forgotten. Tables with
    sparse gradients are left out: averaging them would pass over all their rows each step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        lazy = {
            parameter.data_ptr()
            for module in network.modules()
            if isinstance(module, nn.EmbeddingBag) and module.sparse
            for parameter in module.parameters()
        }
        # Not module by module: sharded tables show one storage under several modules.
        self._live: list[Tensor] = [p for p in network.parameters() if p.data_ptr() not in lazy]
        self._average = [p.detach().clone() for p in self._live]

    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, self._live, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the average inside the block and its own weights after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def restart(self) -> None:
        """Make the average equal to the current weights."""
        with torch.no_grad():
            torch._foreach_copy_(self._average, self._live)

    def _swap(self) -> None:
        with torch.no_grad():
            for live, average in zip(self._live, self._average, strict=True):
                kept = live.clone()
                live.copy_(average)
                average.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        with torch.no_grad():
            torch._foreach_copy_(self._average, state["average"])


def cyclic_cosine(step: int, steps_per_cycle: int, peak: float) -> float:
    """Snapshot-ensemble learning rate: `peak/2 · (cos(π (step mod C) / C) + 1)`.

    References:
        Huang et al., "Snapshot Ensembles: Train 1, Get M for Free", ICLR 2017, eq. 2.
    """
    return peak / 2 * (math.cos(math.pi * (step % steps_per_cycle) / steps_per_cycle) + 1)


@functools.cache
def bf16_is_fast() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in clearly less time than float32.

    The instructions alone do not tell: a Xeon that has AVX512-BF16 but hides its AMX takes nearly
    twice as long.
    """
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    return product_seconds(torch.bfloat16) < _CLEARLY_LESS * product_seconds(torch.float32)


def product_seconds(dtype: torch.dtype) -> float:
    """What one product of a layer's size takes on the CPU, the best of a few."""
    x, weight = torch.ones(512, 512, dtype=dtype), torch.ones(512, 256, dtype=dtype)
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        torch.mm(x, weight)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """bfloat16 matrix products where a resolved configuration says so."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def clip_gradients(network: nn.Module, clip_norm: float) -> None:
    """Scale the gradient so that its L2 norm is at most `clip_norm`; one within it is not touched.

    (PyTorch's own function multiplies every gradient by one, a pass over all tables each step.)
    """
    gradients = []
    for parameter in network.parameters():
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            gradients.append(parameter.grad.values())
        elif parameter.grad is not None:
            gradients.append(parameter.grad)
    norm = float(torch.nn.utils.get_total_norm(gradients, foreach=True))
    if norm > clip_norm:
        torch._foreach_mul_(gradients, clip_norm / (norm + 1e-6))


def check_finite(loss: float, learner: str, epoch: float) -> None:
    """Raises:
    TrainingError: the loss is nan or infinite.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"{learner}: the training loss became {loss} in epoch {epoch:.1f}; its last good "
            "checkpoint is kept. Lower optimizer.learning_rate or optimizer.clip_norm."
        )


@contextlib.contextmanager
def reproducible(seed: int, num_threads: int) -> Iterator[None]:
    """Seed torch and fix its thread count inside the block; restore both after it."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
