"""The commands about tables, and how the other commands name one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynens.errors import BadInputError, ConfigError, rule_of

if TYPE_CHECKING:
    from dynens.schema import DatasetConfig

data_app = typer.Typer(no_args_is_help=True, help="List and fetch the datasets that dynens knows.")
schema_app = typer.Typer(no_args_is_help=True, help="Infer what the columns of a table mean.")


@data_app.command("list")
def data_list() -> None:
    """The presets, with where their data comes from."""
    from dynens.data.datasets.presets import list_presets

    for name, about in list_presets():
        typer.echo(f"{name:<22} {about}")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="Preset, as `dynens data list` names it.")],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Folder to put it in, or that holds a local copy.")
    ] = None,
) -> None:
    """Download a preset, or check a local copy; print where it is."""
    from dynens.data.datasets.presets import fetch

    typer.echo(f"{name}: {fetch(name, directory, lambda line: typer.echo(line, err=True))}")


@schema_app.command("infer")
def schema_infer(
    file: Annotated[str, typer.Argument(help="Table to look at (CSV, Parquet, …).")],
    label: Annotated[str, typer.Option(help="Label: a column, or a rule as 'rating >= 4'.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; standard output if absent.")
    ] = None,
) -> None:
    """Write a dataset.yaml for a table, with reasons for every field."""
    from dynens.data.inference.infer import infer_schema
    from dynens.data.reading.sources import expand
    from dynens.run import write_text

    _refuse_empty(file=file, label=label)
    if out is not None and os.path.realpath(out) in map(os.path.realpath, expand([file])):
        raise BadInputError(f"--out {out} is the table to look at; choose another file.")
    inferred = infer_schema(file, label)
    for warning in inferred.warnings:
        warn(warning)
    if out is None:
        typer.echo(inferred.to_yaml())
    else:
        try:
            write_text(out, inferred.to_yaml())
        except OSError as e:
            raise BadInputError(
                f"{out} cannot be written ({e.strerror or e}); choose another --out."
            ) from e
        typer.echo(f"{out} written; check it, then: dynens fit --data {out} --out RUN")


def dataset_of(
    data: str | None,
    data_dir: Path | None,
    train: str | None,
    valid: str | None,
    test: str | None,
    label: str | None,
    time: str | None,
) -> DatasetConfig:
    """The table that the options of `fit` name.

    Raises:
        ConfigError: they name none, or two.
    """
    from dynens.data.datasets.presets import dataset_for, dataset_from_files

    _refuse_empty(data=data, train=train, valid=valid, test=test, label=label, time=time)
    if (data is None) == (train is None):
        raise ConfigError("give either --data (a preset or dataset.yaml) or --train with --label.")
    if data is not None:
        if label or valid or test or time:
            raise ConfigError("--valid, --test, --label and --time go with --train, not --data.")
        return dataset_for(data, data_dir)
    assert train is not None
    if data_dir is not None:
        raise ConfigError("--dir is the folder of a preset, which --data names.")
    if label is None:
        raise ConfigError("--train needs --label COL, the column that says clicked or not.")
    return dataset_from_files(train, valid or (), test or (), label=label, timestamp=time)


def _refuse_empty(**given: str | None) -> None:
    """Refuse options that say nothing, as of a shell variable that is not set."""
    for name, value in given.items():
        if value is not None and not value.strip():
            raise ConfigError(f"{name} is given as an empty text; name one, or leave it out.")


def usage(error: typer.TyperException) -> str:
    """One sentence about options or arguments that typer refuses, and where they are listed."""
    invalid, colon, reason = error.format_message().partition("': ")
    said = (invalid + colon + rule_of(reason)).rstrip(".")
    if said.startswith("Usage:"):  # all of the help, where nothing was given
        said = "name a command"
    context = getattr(error, "ctx", None)
    return f"{said}; see `{context.command_path} --help`." if context else f"{said}."


def warn(text: str) -> None:
    """Tell the user on stderr."""
    typer.echo(f"warning: {text}", err=True)
