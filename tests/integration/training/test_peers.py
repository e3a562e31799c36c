"""Peers on real Ray workers: they meet, a dead one comes back, and the best one is kept."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from dynens.config.base import validate
from dynens.config.run import RunConfig
from dynens.distill.peers import Exchange
from dynens.errors import ConfigError, TrainingError
from dynens.models.base import FitReport
from training.peers import train_peers

EPOCHS = 4


def config_of(count: int) -> RunConfig:
    settings = {"ray": {"num_cpus": 2}, "distill": {"peers": {"count": count, "staleness": 1}}}
    return validate(RunConfig, settings, "test")


def train(exchange: Exchange, folder: Path) -> FitReport:
    """A peer that says its number; the second one dies in its second epoch, but only once."""
    folder.mkdir(parents=True, exist_ok=True)
    own = np.full(3, exchange.peer, np.float32)
    heard: list[float] = []
    for epoch in range(1, EPOCHS + 1):
        if exchange.peer == 1 and epoch == 2 and not (folder / "died").exists():
            (folder / "died").touch()
            os._exit(1)
        answers = exchange.swap(epoch, own)
        if answers is not None:
            heard += answers.tolist()
    (folder / "heard").write_text(repr(sorted(set(heard))), encoding="utf-8")
    return FitReport((), 0.0, EPOCHS, 0.5, best_score=exchange.peer)


def test_peers_meet_and_one_that_dies_comes_back(tmp_path: Path) -> None:
    best, report = train_peers(config_of(2), train, tmp_path)
    assert best == tmp_path / "peer-1"
    assert report.best_score == 1
    assert (tmp_path / "peer-1" / "died").exists()
    heard = [(tmp_path / f"peer-{peer}" / "heard").read_text() for peer in range(2)]
    assert heard == ["[1.0]", "[0.0]"]


def test_every_peer_needs_a_core(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"peers.count is 3 but Ray has 2 cores.* lower it"):
        train_peers(config_of(3), train, tmp_path)


def fail(exchange: Exchange, folder: Path) -> FitReport:
    """The first peer fails while the other waits for it."""
    if exchange.peer == 0:
        raise TrainingError("the loss of student is not finite in epoch 1.")
    return train(exchange, folder)


def test_what_ends_a_peer_ends_the_others_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        train_peers(config_of(2), fail, tmp_path)
    assert str(caught.value) == "the loss of student is not finite in epoch 1."
