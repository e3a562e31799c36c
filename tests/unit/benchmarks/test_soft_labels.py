"""Who may see which rows in the studies of soft labels."""

import itertools

import numpy as np

from benchmarks.soft_labels import continual_parts, federated_parts, markdown

RNG = np.random.default_rng(0)
TIMES = RNG.permutation(2000).astype(float)
USERS = RNG.integers(0, 300, 2000)


def test_continual_windows_follow_one_another():
    parts = continual_parts(TIMES, USERS)
    old, held = parts.teachers["predecessor"], parts.tests["older rows"]
    ordered = [old | held, parts.student, parts.valid, parts.tests["test"]]
    assert [int(mask.sum()) for mask in ordered] == [900, 700, 200, 200]
    for before, after in itertools.pairwise(ordered):
        assert TIMES[before].max() < TIMES[after].min()
    assert not (old & held).any()
    assert 100 < held.sum() < 260


def test_sites_share_no_user_with_one_another_or_the_public():
    parts = federated_parts(TIMES, USERS)
    shown = [*parts.teachers.values(), parts.student | parts.valid]
    owners = [set(USERS[mask]) for mask in shown]
    assert len(owners) == 4
    assert min(map(len, owners)) > 40
    assert sum(map(len, owners)) == len(set.union(*owners))
    later = TIMES[parts.tests["test"]].min()
    assert all(TIMES[mask].max() < later for mask in shown)


def test_gains_are_taken_within_a_seed():
    results = [
        {"system": "student of predecessor", "seed": 1, "test": 0.6},
        *(
            {"system": "student", "weight": weight, "seed": seed, "route": 0.7, "test": auc}
            for weight, seed, auc in [(0.0, 1, 0.7), (0.5, 1, 0.72), (0.0, 2, 0.8), (0.5, 2, 0.84)]
        ),
    ]
    lines = markdown({"results": results, "tests": ["test"]}).splitlines()
    assert lines[2] == "| student of predecessor | – | 0.6000 | – |"
    assert lines[3] == "| student, soft_label 0 | 0.7000 ± 0.0000 | 0.7500 ± 0.0707 | – |"
    assert lines[4].endswith("| 0.7800 ± 0.0849 | +0.0300 ± 0.0141 |")
