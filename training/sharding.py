"""A `CTRNetwork` spread over a process group with TorchRec, and its weights back to plain ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec.distributed import DistributedModelParallel, ShardingEnv
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.sharding_plan import (
    column_wise,
    construct_module_sharding_plan,
    data_parallel,
    table_wise,
)
from torchrec.distributed.types import ShardingPlan

from dynens.batch import FloatArray, SparseField
from dynens.config.learner import LearnerConfig
from dynens.layers.embeddings import SparseEmbeddings
from dynens.layers.field_tables import FieldTables, join_flat_table, split_flat_table
from dynens.models.network import CTRNetwork
from dynens.models.optim import table_group

Sharding = Literal["table_wise", "column_wise", "data_parallel"]
Weights = dict[str, Tensor]
Fields = tuple[SparseField, ...]

_TABLE = "embeddings.collection.embedding_bags.{}.weight"
_FLAT_TABLE = _TABLE.format("fields")


def shard(network: CTRNetwork, sharding: Sharding, world: int) -> DistributedModelParallel:
    """`network` with one table per field, spread over the process group; its weights are new."""
    assert isinstance(network.embeddings, SparseEmbeddings)
    fields, pooling = network.embeddings.fields, network.embeddings.pooling
    tables = FieldTables(fields, network.shape.embedding_dim, pooling)
    sharded = _replace_embeddings(network, tables)
    sharder = EmbeddingBagCollectionSharder()
    dense = EmbeddingComputeKernel.DENSE.value
    generators: dict[Sharding, Callable[[int], Any]] = {
        "table_wise": lambda i: table_wise(rank=i % world, compute_kernel=dense),
        "column_wise": lambda i: column_wise(ranks=list(range(world)), compute_kernel=dense),
        "data_parallel": lambda i: data_parallel(),
    }
    plan = construct_module_sharding_plan(
        sharded.embeddings.collection,
        per_param_sharding={f"t{i}": generators[sharding](i) for i in range(len(fields))},
        sharder=sharder,
        local_size=world,
        world_size=world,
        device_type="cpu",
    )
    return DistributedModelParallel(
        sharded,
        env=ShardingEnv.from_process_group(dist.group.WORLD),
        device=torch.device("cpu"),
        plan=ShardingPlan(plan={"embeddings.collection": plan}),
        sharders=[sharder],
    )


def fields_of(network: CTRNetwork) -> Fields:
    """The sparse fields of a network whose tables are not distributed yet."""
    assert isinstance(network.embeddings, SparseEmbeddings)
    return network.embeddings.fields


def _replace_embeddings(network: CTRNetwork, embeddings: FieldTables) -> CTRNetwork:
    """A deep copy of `network` with other embeddings."""
    clone = copy.deepcopy(network)
    clone.embeddings = embeddings
    return clone


def build_optimizer(
    model: DistributedModelParallel, config: LearnerConfig
) -> torch.optim.Optimizer:
    """Adam over this worker's shards and its replica of the head."""
    named = [(n, p) for n, p in model.named_parameters() if p.numel()]
    tables = [p for n, p in named if n.startswith("embeddings.")]
    dense = [p for n, p in named if not n.startswith("embeddings.")]
    groups: list[dict[str, Any]] = [{"params": dense, "weight_decay": config.optimizer.dense_l2}]
    if tables:
        groups.append(table_group(tables, config.optimizer))
    return torch.optim.Adam(groups, lr=config.optimizer.learning_rate)


def share_of_batch(
    mine: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    weight: FloatArray | None,
    world: int,
) -> float:
    """What a worker's mean loss counts, so that the workers' average is the mean of all rows.

    Args:
        mine: the worker's rows.
        rows: those of all workers, the global batch.
        weight: (N,) of the table's rows, or None for ones.
        world: number of workers.

    Returns:
        1 where the worker has 1 / `world` of the batch's weight.
    """
    if weight is None:
        return world * len(mine) / len(rows)
    return world * float(weight[mine].sum(dtype=np.float64) / weight[rows].sum(dtype=np.float64))


def clip_gradients(model: DistributedModelParallel, clip_norm: float, sharding: Sharding) -> None:
    """Scale the gradient of the whole model, all workers' shards together, to `clip_norm`."""
    own, shared = torch.zeros(1), torch.zeros(1)
    gradients = []
    for name, parameter in model.named_parameters():
        if parameter.grad is None or not parameter.numel():
            continue
        gradients.append(parameter.grad)
        split = sharding != "data_parallel" and name.startswith("embeddings.")
        (own if split else shared).add_(parameter.grad.square().sum())
    dist.all_reduce(own)
    scale = clip_norm / (float((own + shared).sqrt()) + 1e-6)
    if scale < 1:
        for gradient in gradients:
            gradient.mul_(scale)


def scatter(model: DistributedModelParallel, plain: Mapping[str, Tensor], fields: Fields) -> None:
    """Copy plain weights into this worker's shards and replicas."""
    tables = split_flat_table(fields, plain[_FLAT_TABLE])
    named = {_TABLE.format(name): table for name, table in tables.items()}
    with torch.no_grad():
        for name, target in model.state_dict().items():
            source = named.get(name)
            if source is None:
                target.copy_(plain[name])
            elif not isinstance(target, ShardedTensor):
                target.copy_(source)
            else:
                for piece in target.local_shards():
                    (row, column), (rows, columns) = (
                        piece.metadata.shard_offsets,
                        piece.metadata.shard_sizes,
                    )
                    piece.tensor.copy_(source[row : row + rows, column : column + columns])


def gather(model: DistributedModelParallel, fields: Fields) -> Weights:
    """The plain weights, complete on rank 0 only; every worker must call it."""
    plain: Weights = {}
    tables: Weights = {}
    for name, value in model.state_dict().items():
        if isinstance(value, ShardedTensor):
            whole = torch.zeros(value.size())
            value.gather(dst=0, out=whole if dist.get_rank() == 0 else None)
            value = whole
        parts = name.split(".")
        if name.startswith("embeddings.collection."):
            tables[parts[-2]] = value.detach().clone()
        else:
            plain[name] = value.detach().clone()
    plain[_FLAT_TABLE] = join_flat_table(fields, tables)
    return plain
