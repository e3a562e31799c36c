"""What a stage that cannot go on says."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from dynens.errors import BadInputError, DataError, TrainingError
from dynens.models.checkpoints import save_tensors
from training.failures import explained

ROOT = Path("runs/clicks")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence_even_where_torch_hides_it() -> None:
    with (
        pytest.raises(TrainingError, match=r"the disk of runs/clicks is full.*--resume"),
        explained("student", ROOT),
    ):
        save_tensors({"weight": torch.zeros(100_000)}, Path("/dev/full"))


def test_a_full_disk_of_any_writer() -> None:
    with pytest.raises(TrainingError, match="is full"), explained("student", ROOT):
        raise OSError(errno.ENOSPC, "No space left on device", "table.npy")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_must_not_be_written(number: int) -> None:
    with (
        pytest.raises(BadInputError, match=r"student: /runs/x cannot be used .*correct its rights"),
        explained("student", ROOT),
    ):
        raise OSError(number, "Permission denied", "/runs/x")


def torch_allocation() -> object:
    return torch.zeros(2**45)


def numpy_allocation() -> object:
    return np.zeros(2**45)


@pytest.mark.parametrize("allocate", [torch_allocation, numpy_allocation])
def test_memory_that_runs_out_is_one_sentence(allocate: object) -> None:
    with (
        pytest.raises(TrainingError, match=r"stage student ran out of memory; lower ray.num_cpus"),
        explained("student", ROOT),
    ):
        allocate()  # type: ignore[operator]


@pytest.mark.parametrize("error", [DataError("no label"), KeyError("x"), OSError(errno.EIO, "bad")])
def test_other_errors_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explained("student", ROOT):
        raise error
    assert caught.value is error
