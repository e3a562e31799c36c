"""Sharded networks against the plain one, in two real gloo processes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dynens.config.learner import LearnerConfig
from dynens.models.batches import tensor_batch
from dynens.models.dcnv2 import DCNv2Head
from dynens.models.network import CTRNetwork
from dynens.models.optim import WeightAverage
from dynens.models.training import weighted_bce
from tests.unit.models.tables import tiny_table
from training.sharding import (
    Sharding,
    clip_gradients,
    fields_of,
    gather,
    scatter,
    shard,
    share_of_batch,
)

SHARDINGS: tuple[Sharding, ...] = ("table_wise", "column_wise", "data_parallel")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def compare(rank: int, port: int, folder: str) -> None:
    """Runs in each of two processes; rank 0 writes what the tests look at."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2"
    )
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    table = tiny_table(multi_valued=True)
    config = LearnerConfig(
        model="dcnv2", embedding_dim=8, hidden_units=(8,), dropout=0.0, use_stats=True
    )
    torch.manual_seed(0)
    plain = CTRNetwork(table.layout, config, DCNv2Head, table.stats)
    plain.fit_stats(table.train.stats)
    mine = tensor_batch(table.train, np.arange(rank, 64, 2))
    whole = tensor_batch(table.train, np.arange(64))
    found = {}
    for sharding in SHARDINGS:
        model = shard(plain, sharding, 2)
        scatter(model, plain.state_dict(), fields_of(plain))
        average = WeightAverage(model, 0.5)
        # Weights that moved away from the average must come back when it is taken off.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        with average.applied():
            pass
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(1.0)
        logits = model(mine.dense, mine.ids, mine.stats)
        assert mine.labels is not None
        weighted_bce(logits, mine.labels, None).backward()
        clip_gradients(model, 0.01, sharding)
        # One step of gradient descent with rate 1 on the clipped gradient.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None and parameter.numel():
                    parameter.sub_(parameter.grad)
        found[sharding] = {"logits": logits.detach(), "weights": gather(model, fields_of(plain))}
    assert whole.labels is not None
    expected_logits = plain(mine.dense, mine.ids, mine.stats).detach()
    weighted_bce(plain(whole.dense, whole.ids, whole.stats), whole.labels, None).backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
    with torch.no_grad():
        for parameter in plain.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad)
    if rank == 0:
        expected = {"logits": expected_logits, "weights": dict(plain.state_dict())}
        torch.save({"found": found, "expected": expected}, Path(folder) / "result.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("weighted", [False, True])
def test_workers_mean_losses_average_to_the_one_of_all_rows(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    losses, rows = rng.random(50), rng.permutation(50)[:11]
    weight = rng.choice([1.0, 10.0], 50).astype(np.float32) if weighted else None
    means = []
    for rank in range(3):
        mine = rows[rank::3]
        mean = np.average(losses[mine], weights=None if weight is None else weight[mine])
        means.append(share_of_batch(mine, rows, weight, 3) * mean)
    expected = np.average(losses[rows], weights=None if weight is None else weight[rows])
    assert np.mean(means) == pytest.approx(expected)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, object]]]:
    folder = tmp_path_factory.mktemp("sharding")
    mp.spawn(compare, args=(free_port(), str(folder)), nprocs=2)
    loaded: dict[str, dict[str, dict[str, object]]] = torch.load(folder / "result.pt")
    return loaded


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_sharded_logits_equal_plain_logits(result: dict, sharding: Sharding) -> None:  # type: ignore[type-arg]
    torch.testing.assert_close(
        result["found"][sharding]["logits"], result["expected"]["logits"], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_one_clipped_step_of_two_workers_equals_one_of_one(
    result: dict,  # type: ignore[type-arg]
    sharding: Sharding,
) -> None:
    gathered, plain = result["found"][sharding]["weights"], result["expected"]["weights"]
    assert gathered.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(gathered[name], value, atol=1e-6, rtol=0)
