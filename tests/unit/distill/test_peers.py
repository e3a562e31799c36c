"""Asynchronous mutual learning: the board, the waiting, and the term, by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from dynens.batch import FloatArray
from dynens.config.base import validate
from dynens.config.distill import DistillConfig
from dynens.config.learner import LearnerConfig, OptimizerConfig
from dynens.distill.peers import PATIENCE_S, Exchange, LocalBoard, PeerAnswers, mean_of_known
from dynens.distill.trainer import DistillTrainer, Teaching
from dynens.errors import ConfigError
from dynens.models.dnn import DNNLearner
from tests.unit.models.tables import tiny_table

TABLE = tiny_table(rows=600)
ANSWERS = np.array([0.2, np.nan, 0.6, np.nan], np.float32)
MORE = np.array([0.4, 0.5, np.nan, np.nan], np.float32)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_answers_are_averaged_where_they_are_known() -> None:
    np.testing.assert_allclose(mean_of_known([ANSWERS, MORE]), [0.3, 0.5, 0.6, np.nan], rtol=1e-6)


def test_a_peer_hears_of_the_others_and_not_of_itself() -> None:
    clock = Clock()
    board = LocalBoard(3, clock)
    clock.now_s = 2.0
    board.publish(1, 4, ANSWERS)
    board.end(2)
    clock.now_s = 5.0
    news = board.news(0, with_answers=True)
    assert news.epochs == {1: 4, 2: np.inf}
    assert news.silent_s == {1: 3.0, 2: 5.0}
    np.testing.assert_array_equal(news.answers, ANSWERS)
    assert board.news(1, with_answers=True).answers is None
    assert board.news(0, with_answers=False).answers is None


def test_a_peer_waits_for_one_that_is_too_far_behind() -> None:
    board = LocalBoard(2)
    taken: list[object] = []
    ahead = in_thread(lambda: taken.append(Exchange(board, 0, 1).swap(3, MORE)))
    ahead.join(0.3)
    assert ahead.is_alive()
    board.publish(1, 1, ANSWERS)
    ahead.join(0.3)
    assert ahead.is_alive()  # two epochs behind, where one is allowed
    board.publish(1, 2, ANSWERS)
    ahead.join(5)
    np.testing.assert_array_equal(taken, [ANSWERS])


def test_nobody_waits_for_a_peer_that_ended_or_fell_silent() -> None:
    clock = Clock()
    board = LocalBoard(2, clock)
    exchange = Exchange(board, 0, 0)
    clock.now_s = PATIENCE_S
    board.news(0, with_answers=False)
    assert exchange.swap(1, MORE) is None  # silent from the start
    board.publish(1, 1, ANSWERS)
    board.end(1)
    np.testing.assert_array_equal(exchange.swap(9, MORE), ANSWERS)


def test_long_epochs_are_waited_for_and_waiting_is_no_epoch() -> None:
    clock = Clock()
    board = LocalBoard(2, clock)
    assert board.news(0, with_answers=False).patience_s == PATIENCE_S
    clock.now_s = 200.0
    board.publish(0, 1, MORE)
    clock.now_s = 900.0
    news = board.news(0, with_answers=False)
    assert (news.silent_s, news.patience_s) == ({1: 900.0}, 600.0)
    clock.now_s = 1000.0
    assert board.news(1, with_answers=False).silent_s == {0: 100.0}  # it asked, so it lives
    board.publish(0, 2, MORE)
    assert board.news(0, with_answers=False).patience_s == 600.0


def test_a_row_is_drawn_to_what_the_others_said_of_it() -> None:
    answers = PeerAnswers(4)
    index = torch.tensor([2, 1])
    assert answers(index, torch.tensor([0.7, 0.9])).isnan().all()
    board = LocalBoard(2)
    board.publish(1, 1, ANSWERS)
    answers.swap(Exchange(board, 0, 2), 1)
    np.testing.assert_allclose(answers(index, torch.tensor([0.1, 0.3])), [0.6, np.nan], rtol=1e-6)
    published = board.news(1, with_answers=True).answers
    np.testing.assert_allclose(published, [np.nan, 0.9, 0.7, np.nan], rtol=1e-6)
    assert answers.own[index].tolist() == pytest.approx([0.1, 0.3])


class TurnsBoard(LocalBoard):
    """Two peers train an epoch each in turns, with a random state of their own: repeatable."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.turn = 0
        self.passed = threading.Condition()

    def wait_for_turn(self, peer: int) -> None:
        with self.passed:
            assert self.passed.wait_for(lambda: self.turn == peer, timeout=60)

    def pass_turn(self, peer: int) -> None:
        with self.passed:
            self.turn = 1 - peer
            self.passed.notify_all()

    def publish(self, peer: int, epoch: float, answers: FloatArray) -> None:
        super().publish(peer, epoch, answers)
        state = torch.get_rng_state()
        self.pass_turn(peer)
        self.wait_for_turn(peer)
        torch.set_rng_state(state)


def train_both(weight: float) -> float:
    """Two students of different seeds train beside each other; how far apart their logits end."""
    settings = {
        "peers": {"count": 2, "weight": weight, "staleness": 0},
        "alpha": {"start": 0},
        "augmented_per_row": 0,
    }
    distill = validate(DistillConfig, settings, "test")
    options = OptimizerConfig(batch_size=64, learning_rate=0.01, max_epochs=5, patience=9)
    config = LearnerConfig(embedding_dim=4, hidden_units=(8,), optimizer=options)
    board = TurnsBoard(2)
    learners = [DNNLearner(config, TABLE.layout, TABLE.stats, seed) for seed in range(2)]

    def train(peer: int) -> None:
        board.wait_for_turn(peer)
        teaching = Teaching(
            np.zeros(len(TABLE.train), np.float32), peers=Exchange(board, peer, staleness=0)
        )
        learners[peer].fit_with(
            lambda network, config: DistillTrainer(network, config, distill, teaching, peer),
            TABLE.train,
            TABLE.valid,
        )
        board.pass_turn(peer)

    threads = [in_thread(lambda peer=peer: train(peer)) for peer in range(2)]  # type: ignore[misc]
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    first, second = (learner.predict_logits(TABLE.valid) for learner in learners)
    return float(np.abs(first - second).mean())


def test_peers_draw_nearer_to_each_other() -> None:
    apart, together = train_both(1e-9), train_both(20.0)
    assert 0 < together < 0.7 * apart


def test_peers_have_one_generation() -> None:
    with pytest.raises(ConfigError, match=r"peers.count is 2 and generations is 3; .* set one"):
        validate(DistillConfig, {"peers": {"count": 2}, "generations": 3}, "test")
