"""Values that change over a training run, as pure functions of the epoch."""

from __future__ import annotations

from dynens.config.distill import ScheduleConfig


def schedule_value(config: ScheduleConfig, epoch: float, max_epochs: float) -> float:
    """The scheduled value at `epoch` (fractional, from 0) of a run of `max_epochs`."""
    if config.kind == "linear":
        share = min(epoch / max(max_epochs, 1e-9), 1.0)
        return config.start + share * (config.end - config.start)
    if config.kind == "halving":
        halvings = int(epoch // config.every_epochs)
        return max(config.start * 0.5**halvings, config.end)
    if config.kind == "step":
        return config.start if epoch < config.every_epochs else config.end
    return config.start
