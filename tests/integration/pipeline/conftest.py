"""A small table with users and items, and one finished run that several tests look at."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
import ray

from dynens.cli import main

ROOT = Path(__file__).resolve().parents[3]

FAST = """
seed: 3
learners:
  dnn:
    model: dnn
    hidden_units: [32, 16]
    optimizer: &fast {max_epochs: 6, learning_rate: 0.01, ema_decay: 0}
  dcnv2: {model: dcnv2, hidden_units: [16], cross_layers: 1, optimizer: *fast}
  trees: {model: xgboost, trees: {num_trees: 30, max_depth: 4}}
ensemble: {weight_methods: [uniform, greedy]}
student: {model: dnn, hidden_units: [16, 8], embedding_dim: 4, optimizer: *fast}
distill: {faithful: {epochs: 2, least_steps: 100}}
report: {bootstrap_draws: 20, cost_repeats: 5, random_route_draws: 3}
ray: {num_cpus: 2}
"""


@pytest.fixture(scope="package", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray for the commands of this folder: its workers import torch once."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def dynens(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process."""
    given = ["dynens", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", given),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    code = ended.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(given, code, out.getvalue(), err.getvalue())


def start(*arguments: object, folder: Path = ROOT) -> subprocess.Popen[str]:
    """Start the command line as a user would, with a Ray of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dynens.cli", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def clicks(num_rows: int, seed: int = 0) -> pa.Table:
    """Users and items with tastes, a price, missing values and a yes/no label."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 150, num_rows), rng.integers(0, 80, num_rows)
    taste = np.random.default_rng(99).normal(size=(150, 3))
    style = np.random.default_rng(98).normal(size=(80, 3))
    price = rng.gamma(2.0, 10.0, num_rows)
    z = taste[user, 0] + style[item, 0] + (taste[user] * style[item])[:, 1:].sum(axis=1)
    z = z - 0.03 * price + 0.2
    label = rng.random(num_rows) < 1 / (1 + np.exp(-z))
    shop = np.array(["élan", "north", None, "a,b"], dtype=object)[item % 4]
    return pa.table(
        {
            "user_id": user,
            "item_id": item,
            "shop": pa.array(shop.tolist(), pa.string()),
            "price": pa.array(np.where(rng.random(num_rows) < 0.05, np.nan, price)),
            "bought": np.where(label, "yes", "no"),
        }
    )


@pytest.fixture(scope="package")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clicks.csv` and the fast configuration `fast.yaml`."""
    folder = tmp_path_factory.mktemp("pipeline")
    pa_csv.write_csv(clicks(6000), str(folder / "clicks.csv"))
    (folder / "fast.yaml").write_text(FAST)
    return folder


@pytest.fixture(scope="package")
def finished(workplace: Path) -> Path:
    """A finished run on the table."""
    out = workplace / "run"
    table = ("--train", workplace / "clicks.csv", "--label", "bought")
    process = start("fit", *table, "--config", workplace / "fast.yaml", "--out", out)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out
