"""Students that teach one another, each on a Ray worker of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from dynens.batch import FloatArray
from dynens.config.run import RunConfig
from dynens.distill.peers import Exchange, LocalBoard, News
from dynens.models.base import FitReport
from training.cluster import cancel_running, cluster
from training.plan import check_cores

# Trains one peer and saves it in the folder.
TrainPeer = Callable[[Exchange, Path], FitReport]


class RayBoard:
    """A `Board` in an actor, for workers on any machine of the cluster."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def publish(self, peer: int, epoch: float, answers: FloatArray) -> None:
        ray.get(self._actor.publish.remote(peer, epoch, answers))

    def end(self, peer: int) -> None:
        ray.get(self._actor.end.remote(peer))

    def news(self, peer: int, *, with_answers: bool) -> News:
        news: News = ray.get(self._actor.news.remote(peer, with_answers=with_answers))
        return news


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _train_peer(train: TrainPeer, exchange: Exchange, folder: Path) -> FitReport:
    try:
        return train(exchange, folder)
    finally:
        exchange.board.end(exchange.peer)


def train_peers(config: RunConfig, train: TrainPeer, folder: Path) -> tuple[Path, FitReport]:
    """Train all peers side by side; returns the folder and report of the best one.

    A peer whose worker dies starts again from what it keeps in its folder, and the others go on.

    Args:
        config: of the run; `distill.peers` says how many.
        train: what one peer does, in a worker.
        folder: holds a folder for every peer.

    Raises:
        ConfigError: the cluster has fewer cores than there are peers.
        DynensError: whatever ended a peer ends the others.
    """
    peers = config.distill.peers
    with cluster(config.ray) as cores:
        check_cores(config, cores)
        shared: Any = ray.remote(num_cpus=0)(LocalBoard)
        board = RayBoard(shared.remote(peers.count))
        task = _train_peer.options(max_retries=config.ray.max_retries)
        folders = [folder / f"peer-{number}" for number in range(peers.count)]
        references = [
            task.remote(train, Exchange(board, number, peers.staleness), place)
            for number, place in enumerate(folders)
        ]
        try:
            reports = ray.get(references)
        except RayTaskError as e:
            raise getattr(e, "cause", None) or e from e
        finally:
            cancel_running(references)
    return max(zip(folders, reports, strict=True), key=lambda peer: peer[1].best_score)
