"""What several workers refuse before they start."""

import pytest

from dynens.config.learner import LearnerConfig
from dynens.errors import ConfigError
from training.distributed import DistributedConfig, check_spread


def test_branches_which_workers_would_average_are_refused() -> None:
    check_spread(LearnerConfig(bootstrap=True), DistributedConfig())
    with pytest.raises(ConfigError, match=r"branches is 2; workers would train .* average"):
        check_spread(LearnerConfig(branches=2), DistributedConfig())
