"""RecBole's side of `benchmarks.peer_accuracy`; runs in RecBole's own environment.

    python peer_recbole.py OPTIONS.json

Trains one model after the other with RecBole's data pipeline, trainer and early stopping, and
writes its probabilities of the validation and test rows, in the order of the files.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

# RecBole's checkpoints are pickles, which newer versions of torch load only when told to.
os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed


def config_of(options: dict[str, Any]) -> Config:
    """RecBole's settings for a table that is cut and encoded already."""
    settings = {
        "data_path": options["folder"],
        "checkpoint_dir": options["folder"],
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": None,
        "USER_ID_FIELD": options["user"],
        "ITEM_ID_FIELD": options["item"],
        "numerical_features": options["numerical"],
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": "labeled"},
        "train_neg_sample_args": None,
        "metrics": ["AUC", "LogLoss"],
        "valid_metric": "AUC",
        "metric_decimal_place": 6,
        "use_gpu": False,
        "show_progress": False,
        "seed": options["seed"],
        **options["common"],
    }
    return Config(model=options["model"], dataset=options["name"], config_dict=settings)


def probabilities(model: torch.nn.Module, loader: Any) -> np.ndarray:
    """(N,) of a split's rows, by their numbers in the file."""
    model.eval()
    rows, values = [], []
    with torch.no_grad():
        for interaction, *_ in loader:
            rows.append(interaction["row"].numpy().astype(np.int64))
            values.append(model.predict(interaction).numpy().reshape(-1))
    order = np.argsort(np.concatenate(rows), kind="stable")
    return np.concatenate(values)[order]


def main() -> None:
    options = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(options["threads"])
    config = config_of(options)
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    for i, setting in enumerate(options["settings"]):
        for name, value in setting.items():
            config[name] = value
        init_seed(options["seed"], reproducibility=True)
        model = get_model(config["model"])(config, train.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        started = time.monotonic()
        trainer.fit(train, valid, show_progress=False)
        seconds = time.monotonic() - started
        checkpoint = torch.load(trainer.saved_model_file)
        model.load_state_dict(checkpoint["state_dict"])
        out = Path(options["out"]) / f"{options['model']}-{i}"
        np.savez(
            out, valid=probabilities(model, valid), test=probabilities(model, test), seconds=seconds
        )
        Path(trainer.saved_model_file).unlink()


if __name__ == "__main__":
    main()
