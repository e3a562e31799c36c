"""The command line: the one place that puts data, training, serving and reports together.

Imports of the heavy packages happen inside the commands, so that `--help` is instant.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynens import __version__
from dynens.cli_tables import data_app, dataset_of, schema_app, usage, warn
from dynens.errors import ConfigError, DynensError, StoppedError, causes
from dynens.signals import terminated_as_interrupted

if TYPE_CHECKING:
    from rich.console import Console

    from dynens.config.run import RunConfig
    from dynens.run import RunDirectory
    from dynens.schema import DatasetConfig

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Dynamic ensemble distillation: an ensemble's accuracy at one model's latency and cost.",
)
app.add_typer(data_app, name="data")
app.add_typer(schema_app, name="schema")


class SystemName(StrEnum):
    """Who answers."""

    dynamic = "dynamic"
    student = "student"
    ensemble = "ensemble"


class Format(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"


class ExportFormat(StrEnum):
    """What is written of a run."""

    bundle = "bundle"
    tflite = "tflite"
    coreml = "coreml"


RunArgument = Annotated[Path, typer.Argument(help="Run directory of a `dynens fit`.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"dynens {__version__}")
        raise typer.Exit


@app.command()
def demo(
    full: Annotated[bool, typer.Option(help="Use all users, not a quarter of them.")] = False,
    out: Annotated[Path, typer.Option(help="Run directory (replaced).")] = Path("runs/demo"),
) -> None:
    """Train, distil, serve and load-test on MovieLens-1M, end to end."""
    from dynens.demo import run_demo

    run_demo(full=full, out=out, console=_console())


@app.command()
def fit(
    out: Annotated[Path, typer.Option(help="Run directory to create.")],
    data: Annotated[str | None, typer.Option(help="Preset name or dataset.yaml.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--dir", help="Folder with the preset's files.")
    ] = None,
    train: Annotated[str | None, typer.Option(help="Training table (CSV, Parquet, .gz).")] = None,
    valid: Annotated[str | None, typer.Option(help="Validation table; cut if absent.")] = None,
    test: Annotated[str | None, typer.Option(help="Test table; cut if absent.")] = None,
    label: Annotated[str | None, typer.Option(help="Label of --train: column or rule.")] = None,
    time: Annotated[str | None, typer.Option(help="Its timestamp column, if not found.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with run settings.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as section.key=value; repeatable.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a killed run from its finished stages.")
    ] = False,
    reuse: Annotated[
        Path | None, typer.Option(help="Run to start from: its table, settings, unchanged stages.")
    ] = None,
) -> None:
    """Train a pool, distil it into a student, write the bundle.

    Name the table by --data (a preset or dataset.yaml), by --train with --label (a column, or a
    rule such as 'rating >= 4'), or by --reuse. Types and splits that are not given are inferred.
    """
    from dynens.config.run import load_run_config
    from dynens.run import RunDirectory

    if reuse is None:
        dataset = dataset_of(data, data_dir, train, valid, test, label, time)
        run_config = load_run_config(config, settings or [])
    else:
        from training.reuse import settings_of

        if any((data, data_dir, train, valid, test, label, time)):
            raise ConfigError(
                "--reuse takes the table of the run it names; leave out what names another."
            )
        dataset, given = settings_of(reuse)
        run_config = load_run_config(config, settings or [], given)
    try:
        run_fit(dataset, run_config, out, resume=resume, reuse=reuse, console=_console())
    except KeyboardInterrupt as e:
        if RunDirectory(out).config.is_file():
            raise StoppedError("stopped; the same command with --resume continues.") from e
        raise


def run_fit(
    dataset: DatasetConfig,
    config: RunConfig,
    out: Path,
    *,
    resume: bool,
    console: Console,
    reuse: Path | None = None,
) -> dict[str, Any]:
    """`fit` and the report, with progress on `console`; returns the metrics."""
    from dynens.report.console import print_metrics
    from dynens.report.write import write_report
    from training.console import ConsoleWatcher
    from training.pipeline import fit as fit_run

    with ConsoleWatcher(console) as watcher:
        run = fit_run(dataset, config, out, resume=resume, reuse=reuse, watcher=watcher)
    with console.status("evaluating"):
        metrics = write_report(run)
    print_metrics(console, metrics)
    console.print(f"report: {run.report / 'report.html'}", soft_wrap=True)
    return metrics


@app.command()
def evaluate(
    run: RunArgument,
    data: Annotated[
        str | None, typer.Option(help="Labelled table to use instead of the test split.")
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
) -> None:
    """Measure every system of a run on its test split or a table."""
    import json

    from dynens.report.console import print_metrics
    from dynens.report.write import evaluate_run
    from dynens.run import RunDirectory, finite

    metrics, _, _ = evaluate_run(RunDirectory.open(run), data, warn)
    if output is Format.json:
        typer.echo(json.dumps(finite(metrics), indent=1))
    else:
        print_metrics(_console(), metrics)


@app.command()
def predict(
    run: RunArgument,
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Table to score.")],
    out: Annotated[Path, typer.Option(help="Where to write (.csv or .parquet).")],
    system: Annotated[SystemName, typer.Option(help="What scores the rows.")] = SystemName.dynamic,
) -> None:
    """Score a table: its rows with `probability` and `route`."""
    from dynens.predict import predict_file
    from dynens.run import RunDirectory

    rows = predict_file(RunDirectory.open(run), source, out, system.value, warn)
    typer.echo(f"{rows} rows written to {out}")


@app.command()
def serve(
    run: RunArgument,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    replicas: Annotated[int | None, typer.Option(help="Scoring processes.", min=1)] = None,
    latency_budget_ms: Annotated[
        float | None,
        typer.Option(help="Default budget per request in ms, else the run's.", min=0.1),
    ] = None,
    system: Annotated[
        SystemName | None, typer.Option(help="What scores the rows; the run's setting if absent.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A serving setting, as key=value; repeatable.")
    ] = None,
) -> None:
    """Serve a run over HTTP; Ctrl-C or SIGTERM drains and stops it."""
    from dynens.config.base import apply_overrides, validate
    from dynens.config.serving import ServingConfig
    from dynens.report.write import run_config
    from dynens.run import RunDirectory
    from serving.server import serve as serve_run

    directory = RunDirectory.open(run)
    given: dict[str, Any] = run_config(directory).serving.model_dump(mode="json")
    options = {"system": system, "replicas": replicas, "latency_budget_ms": latency_budget_ms}
    given |= {name: value for name, value in options.items() if value is not None}
    given = apply_overrides(given, settings or [])
    serve_run(
        run,
        host=host,
        port=port,
        config=validate(ServingConfig, given, "serving settings"),
        on_ready=lambda url: typer.echo(f"ready on {url} (Ctrl-C stops)"),
    )


@app.command()
def loadtest(
    url: Annotated[str, typer.Argument(help="Base URL of the server.")],
    run: Annotated[Path, typer.Option(help="Run whose test split is replayed.")],
    rate: Annotated[
        float,
        typer.Option(help="Requests per second; with --find-peak the first one tried.", min=0.1),
    ],
    duration_s: Annotated[
        float, typer.Option("--duration-s", help="Seconds; with --find-peak of each trial.", min=1)
    ],
    rows_per_request: Annotated[int, typer.Option(help="Candidates per request.", min=1)] = 100,
    find_peak: Annotated[
        bool,
        typer.Option(
            "--find-peak",
            help="Search the highest rate with p99 within --budget-ms, at most 0.1 % errors and at "
            "least 99 % of the hard rows answered by the ensemble.",
        ),
    ] = False,
    budget_ms: Annotated[
        float, typer.Option(help="Upper bound of p99 in ms, for --find-peak.", min=0.1)
    ] = 8.0,
    bearer_token_env: Annotated[
        str | None,
        typer.Option(help="Environment variable with the server's bearer token."),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
) -> None:
    """Send requests made of the test split at a constant rate (k6)."""
    import json

    from dynens.report.console import print_load, trial_line
    from dynens.run import finite
    from serving.loadcheck import bearer_header, check_server
    from serving.loadtest import LoadOptions, find_server_peak, run_loadtest

    options = LoadOptions(headers=bearer_header(bearer_token_env))
    check_server(url, run, rows_per_request, options.headers)
    data: dict[str, Any]
    if find_peak:
        typer.echo(f"trials of {duration_s:g} s, some 10 to 20 of them:", err=True)
        peak, trials = find_server_peak(
            url,
            run,
            budget_ms,
            rows_per_request,
            start_qps=rate,
            trial_s=duration_s,
            on_trial=lambda result, kept: typer.echo(trial_line(result.to_dict(), kept), err=True),
            options=options,
        )
        data = {"peak_qps": peak, "budget_ms": budget_ms, "trials": [t.to_dict() for t in trials]}
    else:
        data = run_loadtest(url, run, rate, duration_s, rows_per_request, options=options).to_dict()
    if output is Format.json:
        typer.echo(json.dumps(finite(data), indent=1))
    elif find_peak:
        typer.echo(f"peak: {peak:.0f} requests/s with p99 within {budget_ms:g} ms")
    else:
        print_load(_console(), data)


@app.command()
def report(run: RunArgument) -> None:
    """Evaluate a run again and rewrite its report."""
    from dynens.report.console import print_metrics
    from dynens.report.write import write_report
    from dynens.run import RunDirectory

    directory = RunDirectory.open(run)
    print_metrics(_console(), write_report(directory))
    _console().print(f"report: {directory.report / 'report.html'}", soft_wrap=True)


@app.command()
def export(
    run: RunArgument,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="The bundle again (after an upgrade), or the student as a file for devices.",
        ),
    ] = ExportFormat.bundle,
    out: Annotated[
        Path | None, typer.Option(help="File for devices to write (.tflite or .mlpackage).")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            help="Rows per call on the device: exactly that many (tflite) or at most (coreml); "
            "100 if absent.",
            min=1,
        ),
    ] = None,
) -> None:
    """Write a run's bundle again, or its student for devices."""
    from dynens.run import RunDirectory

    directory = RunDirectory(RunDirectory.open(run).root.resolve())
    if form is ExportFormat.bundle:
        if out is not None or rows is not None:
            raise ConfigError("--out and --rows belong to a --format for devices; leave them out.")
        _export_bundle(directory)
        return
    if out is None:
        raise ConfigError(f"--format {form.value} writes one file; name it with --out.")
    from training.devices import export_device

    note = export_device(directory, form.value, out, rows or 100)
    difference = note["largest_difference"]
    checked = "not run, which only a device can"
    if difference is not None:
        checked = f"within {difference:.1g} of the student on test rows"
    typer.echo(f"{out}: {checked}; {out.name}.json says how to feed it")


def _export_bundle(directory: RunDirectory) -> None:
    from dynens.report.console import print_metrics
    from dynens.report.write import write_report
    from training.console import ConsoleWatcher
    from training.export import export_run

    with ConsoleWatcher(_console()) as watcher:
        export_run(directory, watcher)
    print_metrics(_console(), write_report(directory))


def _console() -> Console:
    from rich.console import Console

    return Console()


def main() -> None:
    """Run the command line; a user's mistake ends in one line on stderr and exit code 2."""
    try:
        code = _called()
    except typer.Abort as e:  # typer's answer to EOFError, which nothing here raises on purpose
        raise (e.__cause__ or e) from None
    except typer.TyperException as e:
        print(f"dynens: {usage(e)}", file=sys.stderr)
        code = 2
    except DynensError as e:
        print(f"dynens: {' '.join(str(e).split())}", file=sys.stderr)
        code = e.exit_code
    sys.exit(code if isinstance(code, int) else 0)


@terminated_as_interrupted()
def _called() -> object:
    """What the command line returns; whatever Ctrl-C or SIGTERM has become is a StoppedError."""
    try:
        code = app(standalone_mode=False)
    except ImportError as e:  # what compiled modules make of it while they are imported
        if not any(isinstance(cause, KeyboardInterrupt) for cause in causes(e)):
            raise
        code = StoppedError.exit_code  # as typer answers it
    if code == StoppedError.exit_code:
        raise StoppedError("stopped.")
    return code


if __name__ == "__main__":
    main()
