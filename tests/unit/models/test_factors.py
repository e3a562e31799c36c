"""One side's vectors given the other's, their priors, and who met whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynens.models.factors import Prior, Rows, draw_vectors, met, scores


def rows_of(users: np.ndarray, items: np.ndarray, weight: np.ndarray) -> Rows:
    return Rows.by(users, items, torch.from_numpy(weight), 5)


def test_vectors_have_the_posterior_of_a_linear_regression() -> None:
    rng = np.random.default_rng(3)
    users, items = rng.integers(0, 4, 60), rng.integers(0, 7, 60)  # the fifth user has no rows
    value, weight = rng.standard_normal(60), rng.uniform(0.5, 2, 60)
    other = rng.standard_normal((7, 3))
    prior, noise = Prior(rng.standard_normal((5, 2)), 3), 1.7
    prior.state.mean = rng.standard_normal(3)
    prior.state.link = rng.standard_normal((2, 3))
    prior.state.precision = np.array([[2.0, 0.3, 0], [0.3, 1, 0], [0, 0, 0.5]])
    rows, heard = rows_of(users, items, weight), torch.from_numpy(value)
    known = torch.from_numpy(other)
    draws = [draw_vectors(rows, heard, known, prior, noise, rng) for _ in range(4000)]
    mean, drawn = draws[0][0].numpy(), np.stack([d.numpy() for _, d in draws])
    expected = prior.mean()
    for user in range(5):
        mine = users == user
        inputs = np.c_[other[items[mine], :2], np.ones(mine.sum())]
        target = value[mine] - other[items[mine], 2]
        precision = prior.state.precision + noise * (inputs.T * weight[mine]) @ inputs
        pull = prior.state.precision @ expected[user] + noise * inputs.T @ (weight[mine] * target)
        np.testing.assert_allclose(mean[user], np.linalg.solve(precision, pull), atol=1e-9)
        np.testing.assert_allclose(
            np.cov(drawn[:, user].T), np.linalg.inv(precision), atol=0.15, rtol=0.15
        )
        np.testing.assert_allclose(drawn[:, user].mean(0), mean[user], atol=0.15)
    np.testing.assert_allclose(mean[4], expected[4], atol=1e-9)


def test_a_weight_of_two_is_two_rows() -> None:
    rng = np.random.default_rng(4)
    users, items, value = rng.integers(0, 5, 40), rng.integers(0, 7, 40), rng.standard_normal(40)
    other, prior = torch.from_numpy(rng.standard_normal((7, 3))), Prior(np.zeros((5, 0)), 3)
    twice = [np.concatenate([x, x]) for x in (users, items, value)]
    heavy = rows_of(users, items, np.full(40, 2.0)), torch.from_numpy(value)
    doubled = rows_of(twice[0], twice[1], np.ones(80)), torch.from_numpy(twice[2])
    means = [draw_vectors(*r, other, prior, 1.0, rng)[0] for r in (heavy, doubled)]
    torch.testing.assert_close(*means)


def test_a_prior_learns_where_vectors_lie_and_what_they_go_with() -> None:
    rng = np.random.default_rng(5)
    side = rng.standard_normal((3000, 2))
    link, mean = np.array([[1.0, -0.5, 0], [0, 0.7, 0.2]]), np.array([2.0, 0, -1])
    vectors = mean + side @ link + rng.standard_normal((3000, 3)) * [0.5, 1, 2]
    prior = Prior(side, 3)
    states = []
    for sweep in range(60):
        prior.draw(vectors, rng)
        if sweep >= 10:
            state = prior.state
            states.append((state.mean, state.link, np.linalg.inv(state.precision)))
    means, links, covariances = (np.mean(x, axis=0) for x in zip(*states, strict=True))
    np.testing.assert_allclose(means, mean, atol=0.1)
    np.testing.assert_allclose(links, link, atol=0.1)
    np.testing.assert_allclose(covariances, np.diag([0.25, 1, 4]), atol=0.2)
    assert np.std([m for m, _, _ in states], axis=0).max() < 0.1


def test_scores_are_a_product_and_two_biases() -> None:
    left, right = torch.tensor([[1.0, 2, 3], [0, 1, 1]]), torch.tensor([[2.0, 0, 5]])
    said = scores(left, right, torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert said.tolist() == [1 * 2 + 3 + 5, 1 + 5]


def test_who_met_whom_is_told_in_numbers_of_size_one() -> None:
    rng = np.random.default_rng(6)
    users, items = rng.integers(0, 19, 300), rng.integers(0, 12, 300)
    of_users, of_items = met(users, items, (20, 12), 5, seed=1)
    assert of_users.shape == (20, 5)
    assert of_items.shape == (12, 5)
    for side in (of_users, of_items):
        assert np.sum(side**2) == pytest.approx(len(side))
    np.testing.assert_allclose(of_users[19], 0, atol=1e-9)  # who met nothing
    assert met(users, items, (20, 12), 0, seed=1)[0].shape == (20, 0)
    assert met(users, items, (20, 12), 99, seed=1)[0].shape == (20, 11)
