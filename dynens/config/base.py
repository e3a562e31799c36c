"""What every configuration class shares: frozen, typed, unknown keys forbidden."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from dynens.errors import ConfigError, rule_of


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
            raise ConfigError(
                f"--set {setting!r}: the value is not YAML; write key=1, key=text or key=[1, 2]."
            ) from e
    return result


def validate_overridden(
    config_class: type[Config], data: dict[str, Any], overrides: list[str], origin: str
) -> Config:
    """`validate` of `data` with `a.b=c` settings laid over.

    A mistake is theirs, and not the origin's, where there is none without them.
    """
    result = apply_overrides(data, overrides)
    if overrides:
        with contextlib.suppress(ConfigError):
            validate(config_class, data, origin)
            origin = "--set"
    return validate(config_class, result, origin)


def validate(config_class: type[Config], data: dict[str, Any], origin: str) -> Config:
    """Build `config_class` from `data`; a mistake becomes one sentence naming key and value.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or range, or a broken rule.
    """
    try:
        return config_class.model_validate(data)
    except ValidationError as e:
        first, *others = e.errors()
        key = _key(first, data)
        if first["type"] == "extra_forbidden":
            known = _keys_beside(config_class, first["loc"])
            near = difflib.get_close_matches(str(first["loc"][-1]), known, 1, cutoff=0.65)
            hint = f"did you mean {near[0]!r}?" if near else f"known ones are {', '.join(known)}."
            raise ConfigError(f"{origin}: unknown key {key!r}; {hint}") from e
        where = f"{origin}: {key}" if key else origin
        if first["type"] == "value_error":
            raise ConfigError(f"{where}: {rule_of(first['msg'])}.") from e
        rules = [rule_of(error["msg"]) for error in (first, *others) if _key(error, data) == key]
        rule = " or ".join(dict.fromkeys(rules)).replace(" or must be ", " or ")
        given = "nothing" if first["input"] is None else repr(first["input"])
        raise ConfigError(f"{where} {rule} (given {given}).") from e


def _key(error: ErrorDetails, data: Any) -> str:
    """The dotted key that an error is about, without the kind that was tried where two may be."""
    parts = []
    for part in error["loc"]:
        is_key = isinstance(data, Mapping) and (part in data or error["type"] == "missing")
        is_place = isinstance(data, list | tuple) and isinstance(part, int)
        if not is_key and not is_place:
            break
        data = data.get(part) if is_key else data[part]
        parts.append(str(part))
    return ".".join(parts)


def _keys_beside(config: type[FrozenConfig], place: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand where an error of `config` is."""
    for part in place[:-1]:
        field = config.model_fields.get(str(part))
        if field is not None:
            config = next(_sections_in(field.annotation), config)
    return list(config.model_fields)


def _sections_in(annotation: Any) -> Iterator[type[FrozenConfig]]:
    """The configuration classes in a type such as `dict[str, Section] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, FrozenConfig):
        yield annotation
    for inside in get_args(annotation):
        yield from _sections_in(inside)


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
