"""Trainings that die on the way."""

from __future__ import annotations

from collections.abc import Callable

from dynens.models.base import FitProgress


class KilledError(Exception):
    """Stands for the death of the worker."""


def kill_after(epoch: float) -> Callable[[FitProgress], None]:
    """A progress callback that no later point gets past."""

    def kill(progress: FitProgress) -> None:
        if progress.point.epoch > epoch:
            raise KilledError

    return kill
