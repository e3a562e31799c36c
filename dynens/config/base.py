"""What every configuration class shares: frozen, typed, unknown keys forbidden."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from dynens.errors import ConfigError


class FrozenConfig(BaseModel):
    """Base of all configuration sections; a number is finite unless its field says otherwise."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )


Config = TypeVar("Config", bound=FrozenConfig)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(
            f"{path} cannot be read ({e.strerror}); give an existing YAML file."
        ) from e
    except UnicodeDecodeError as e:
        raise ConfigError(
            f"{path} is no text, but YAML is; a table goes with --train and --label."
        ) from e
    except (yaml.YAMLError, ValueError) as e:  # ValueError: a date such as 2024-02-30
        detail = " ".join(str(e).split())
        raise ConfigError(f"{path} is not valid YAML ({detail}); correct it.") from e
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path} holds a {type(data).__name__}; a configuration must be a mapping of keys."
        )
    return data


def apply_overrides(data: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Lay `a.b=c` settings over a nested mapping; values are read as YAML scalars.

    Raises:
        ConfigError: a setting has no `=`, or goes below something that is not a mapping.
    """
    result = merged(data, {})
    for setting in overrides:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            lacks = "no key before its '='" if separator else "no '='"
            raise ConfigError(
                f"--set {setting!r} has {lacks}; write it as --set section.key=value."
            )
        node = result
        *parents, last = key.split(".")
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set {setting!r}: {parent!r} is a value, not a section.")
            node = child
        try:
            node[last] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as e:
            raise ConfigError(f"--set {setting!r}: the value is not a YAML scalar or list.") from e
    return result


def validate(config_class: type[Config], data: dict[str, Any], origin: str) -> Config:
    """Build `config_class` from `data`; a mistake becomes one sentence naming key and value.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or range, or a broken rule.
    """
    try:
        return config_class.model_validate(data)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"{origin}: unknown key {key!r}; dynens/config has the keys of a run, and "
                "dynens/schema.py those of a dataset."
            ) from e
        reason = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] == "value_error" else f" (given {first['input']!r})"
        where = f"{origin}: {key}" if key else origin
        raise ConfigError(f"{where}: {reason}{given}.") from e


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `base` with the values of `over` laid on it, section by section."""
    result = {k: merged(v, {}) if isinstance(v, dict) else v for k, v in base.items()}
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result
