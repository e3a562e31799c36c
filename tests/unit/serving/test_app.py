"""What decides whether a deployment replaces replicas, without starting Ray."""

from typing import Any

from serving.app import build


def _version(**arguments: Any) -> Any:
    return build({"bundle": "a", **arguments})._bound_deployment._version


def test_another_bundle_keeps_the_replicas_and_other_settings_replace_them() -> None:
    first = _version()
    assert first is not None  # which Serve takes for another one each time
    assert _version(bundle="b", generation=3) == first
    assert _version(serving={"replicas": 2}) != first
    assert _version(metrics_dir="m") != first
    assert _version(serving={"threshold": float("-inf")}) != first
