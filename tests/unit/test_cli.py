"""The command line: exit codes, and the one line that a stopped command leaves."""

import re
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dynens import cli
from dynens.config.serving import ServingConfig
from dynens.run import RunDirectory
from dynens.signals import handled_by

Ran = Callable[..., tuple[int | str | None, str]]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """(exit code, standard error) of a command line."""

    def call(*arguments: str) -> tuple[int | str | None, str]:
        monkeypatch.setattr(sys, "argv", ["dynens", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, capsys.readouterr().err

    return call


@pytest.mark.parametrize("has_started", [True, False])
def test_ctrl_c_says_stopped_and_whether_to_resume(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_started: bool
) -> None:
    def stopped(*_: object, **__: object) -> None:
        if has_started:
            RunDirectory(tmp_path / "run").start({}, resume=False)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "dataset_of", lambda *_: None)
    monkeypatch.setattr(cli, "run_fit", stopped)
    code, said = ran("fit", "--out", str(tmp_path / "run"), "--train", "t.csv", "--label", "y")
    assert code == 130
    how = "stopped; the same command with --resume continues." if has_started else "stopped."
    assert said == f"dynens: {how}\n"


def test_sigterm_stops_a_command_as_ctrl_c_does(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "dataset_of", lambda *_: signal.raise_signal(signal.SIGTERM))
    with handled_by(lambda *_: None):  # else pytest would end where the command does not listen
        said = ran("fit", "--out", "run", "--train", "t.csv", "--label", "y")
    assert said == (130, "dynens: stopped.\n")


def test_ctrl_c_while_a_compiled_module_is_imported(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(cli, "dataset_of", interrupted)
    fit = ("fit", "--out", "run", "--train", "t.csv", "--label", "y")
    assert ran(*fit) == (130, "dynens: stopped.\n")
    monkeypatch.setattr(cli, "dataset_of", lambda *_: __import__("no_such_module"))
    with pytest.raises(ModuleNotFoundError):
        ran(*fit)


def test_a_file_that_ends_too_early_is_no_ctrl_c(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(*_: object) -> None:
        raise EOFError("No data left in file")

    monkeypatch.setattr(cli, "dataset_of", ends)
    with pytest.raises(EOFError, match="No data left"):
        ran("fit", "--out", "run", "--train", "t.csv", "--label", "y")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["predict", "run", "t.csv", "--out", "o.csv", "--system", "nosuch"],
            "Invalid value for '--system': 'nosuch' is not one of 'dynamic', 'student', 'ensemble'",
        ),
        (["serve", "run", "--port", "0"], "Invalid value for '--port': must be at least 1"),
        (["serve", "run", "--port", "x"], "Invalid value for '--port': must be a whole number"),
        (["serve", "run", "--latency-budget-ms", "x"], "'--latency-budget-ms': must be a number"),
        (["fit", "--data", "t.yaml"], "Missing option '--out'"),
        (["nosuch"], "No such command 'nosuch'"),
    ],
)
def test_a_wrong_option_is_told_with_where_options_are_listed(
    ran: Ran, arguments: list[str], told: str
) -> None:
    code, said = ran(*arguments)
    command = arguments[0].replace("nosuch", "")
    assert code == 2
    assert said.startswith("dynens: ")
    assert f"{told}; see `" in said
    assert said.endswith(f"{command} --help`.\n")
    assert "Input should" not in said


@pytest.mark.parametrize("group", [(), ("data",), ("schema",)])
def test_no_command_is_told_in_one_line(ran: Ran, group: tuple[str, ...]) -> None:
    code, said = ran(*group)
    assert code == 2
    assert said.startswith("dynens: name a command; see `")
    assert said.endswith(f"{' '.join(('dynens', *group))} --help`.\n")
    assert said.count("\n") == 1


def test_a_mistake_is_one_line_and_two(ran: Ran) -> None:
    code, said = ran("fit", "--out", "run", "--train", "t.csv")
    assert code == 2
    assert said == "dynens: --train needs --label COL, the column that says clicked or not.\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--train", "t.csv", "--label", "y"],
            "--dir is the folder of a preset, which --data names.",
        ),
        (
            ["--data", "t.yaml"],
            "--dir is the folder of a preset, and t.yaml names its files itself.",
        ),
    ],
)
def test_a_folder_goes_with_a_preset_only(ran: Ran, arguments: list[str], sentence: str) -> None:
    code, said = ran("fit", "--out", "run", "--dir", "data", *arguments)
    assert (code, said) == (2, f"dynens: {sentence}\n")


@pytest.mark.parametrize(
    ("options", "system"), [([], "student"), (["--system", "ensemble"], "ensemble")]
)
def test_the_run_says_who_answers_unless_the_option_does(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str], system: str
) -> None:
    RunDirectory(tmp_path).start({"serving": {"system": "student", "replicas": 2}}, resume=False)
    served: list[ServingConfig] = []
    monkeypatch.setattr("serving.server.serve", lambda *_, config, **__: served.append(config))
    ran("serve", str(tmp_path), "--latency-budget-ms", "5", *options)
    (config,) = served
    assert (config.system, config.replicas, config.latency_budget_ms) == (system, 2, 5.0)


def test_a_schema_that_cannot_be_written(ran: Ran, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,y\n" + "1,0\n2,1\n" * 50)
    out = table / "schema.yaml"
    code, said = ran("schema", "infer", str(table), "--label", "y", "--out", str(out))
    assert code == 2
    assert f"dynens: {out} cannot be written (File exists); choose another --out.\n" in said


@pytest.mark.parametrize(
    "command", ["schema infer {table} --label y", "fit --train {table} --label y", "demo"]
)
def test_an_out_whose_name_is_too_long_is_one_sentence(
    ran: Ran, tmp_path: Path, command: str
) -> None:
    (tmp_path / "t.csv").write_text("a,y\n" + "1,0\n2,1\n" * 50)
    words = command.format(table=tmp_path / "t.csv").split()
    code, said = ran(*words, "--out", str(tmp_path / ("x" * 300)))
    assert code == 2
    assert re.search(r"dynens: \S+ cannot be written \(File name too long\); choose another", said)


def test_a_schema_does_not_replace_its_table(ran: Ran, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,y\n" + "1,0\n2,1\n" * 50)
    before = table.read_bytes()
    code, said = ran("schema", "infer", f"{tmp_path}/*.csv", "--label", "y", "--out", str(table))
    assert code == 2
    assert "is the table to look at; choose another file." in said
    assert table.read_bytes() == before


def test_the_package_runs_as_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dynens", "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("dynens", run_name="__main__")
    assert caught.value.code == 0
    assert "fit" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--label", "--time", "--test", "--valid"])
def test_an_option_given_as_an_empty_text_is_refused(ran: Ran, tmp_path: Path, option: str) -> None:
    (tmp_path / "t.csv").write_text("a,y\n1,0\n2,1\n")
    given = {"--train": str(tmp_path / "t.csv"), "--label": "y", option: " "}
    code, said = ran("fit", "--out", str(tmp_path / "run"), *sum(given.items(), ()))
    told = f"{option.strip('-')} is given as an empty text; name one, or leave it out."
    assert (code, said) == (2, f"dynens: {told}\n")
    assert not (tmp_path / "run").exists()
