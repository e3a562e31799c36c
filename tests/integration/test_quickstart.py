"""The README's quick start, command by command, and scoring without a server, on a small table."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.synthetic import SyntheticConfig, write
from serving.environment import free_port
from tests.server_process import get

ROOT = Path(__file__).resolve().parents[2]


def quick_start() -> list[str]:
    """The commands of the README's quick start."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- quick start.*?-->\n```bash\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found.group(1).strip().splitlines()


def in_process() -> str:
    """The example of scoring without a server."""
    text = (ROOT / "docs/SERVING.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- in process.*?-->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found.group(1)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, timeout=400
    )


@pytest.mark.timeout(900)
def test_quick_start_works_as_written(tmp_path: Path) -> None:
    table = tmp_path / "data/synthetic"
    table.mkdir(parents=True)
    write(SyntheticConfig(num_rows=2000, num_users=100, num_items=50), table)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/dynens").symlink_to(Path(sys.executable).parent / "dynens")
    port = free_port()
    commands = [c.replace("8000", str(port)) for c in quick_start()]
    server: subprocess.Popen[str] | None = None
    try:
        for command in commands:
            if " serve " in command:
                server = subprocess.Popen(
                    ["/bin/sh", "-c", f"exec {command}"],
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert server.stdout is not None
                assert "ready on" in server.stdout.readline()
                get(f"http://127.0.0.1:{port}/v2/health/ready")
                continue
            done = run(command, tmp_path)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
    assert (tmp_path / "runs/clicks/report/report.html").is_file()
    predicted = pq.read_table(tmp_path / "runs/clicks.parquet")["probability"].to_numpy()
    (tmp_path / "score.py").write_text(
        in_process() + "import numpy as np\nnp.save('scored.npy', scores.probability)\n"
    )
    done = run(f"{sys.executable} score.py", tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "scored.npy"), predicted[:100], atol=1e-5)
