"""What several workers refuse before they start."""

import pytest

from dynens.config.base import validate
from dynens.config.learner import LearnerConfig
from dynens.errors import ConfigError
from training.distributed import DistributedConfig, check_spread


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"bootstrap": True}, "bootstrap"),
        ({"optimizer": {"snapshots": 2}}, "optimizer.snapshots"),
        ({"optimizer": {"schedule": "cosine"}}, "optimizer.schedule"),
        ({"optimizer": {"evaluations_per_epoch": 2}}, "optimizer.evaluations_per_epoch"),
    ],
)
def test_what_workers_would_leave_out_is_refused(settings: dict[str, object], name: str) -> None:
    check_spread(LearnerConfig(), DistributedConfig())
    with pytest.raises(ConfigError, match=f"dnn: several workers do not know {name}; leave"):
        check_spread(validate(LearnerConfig, settings, "test"), DistributedConfig())
