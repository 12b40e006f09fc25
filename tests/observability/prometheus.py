"""The real Prometheus and its promtool, from Debian's package, without installing it: that would start a service."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from demo.cache import cache_root, locked
from demo.guest import debian

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "charts" / "lifeboat" / "files" / "alerts.yaml"
DASHBOARD = ROOT / "charts" / "lifeboat" / "files" / "dashboard.json"


@dataclass(frozen=True)
class Programs:
    """Where the two programs are."""

    prometheus: Path
    promtool: Path

    def check(self, *arguments: str | Path, text: str | None = None) -> str:
        """Run promtool; what it says, where it does not fail."""
        done = subprocess.run(
            [self.promtool, *arguments], input=text, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"promtool {' '.join(map(str, arguments))}:\n{done.stdout}{done.stderr}"
        return done.stdout


def programs() -> Programs:
    """Both programs: those on the PATH where they are, otherwise Debian's, kept unpacked outside the checkout."""
    found = [shutil.which(name) for name in ("prometheus", "promtool")]
    if all(found):
        return Programs(*(Path(str(each)) for each in found))
    package = next(each for each in debian.resolve(["prometheus"]) if each.name == "prometheus")
    folder = cache_root() / f"prometheus-{package.version}"
    with locked(folder.with_suffix(".lock"), "another process is unpacking Prometheus: waiting for it"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache_root()) as scratch:
                root = Path(scratch) / "root"
                debian.unpack(["prometheus"], [package], root)
                (root / "usr" / "bin").rename(folder)
    return Programs(folder / "prometheus", folder / "promtool")


def rules(path: Path = RULES) -> list[dict[str, Any]]:
    """The alerting rules of a file."""
    return [rule for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


class Server:
    """A Prometheus that runs, and what it answers."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self.ask("query", query=expression)["result"])

    def firing(self) -> set[tuple[str, str]]:
        """The alerts that fire, each with the name of the object that it is about."""
        return {
            (each["labels"]["alertname"], each["labels"].get("name", ""))
            for each in self.ask("alerts")["alerts"]
            if each["state"] == "firing"
        }


@contextmanager
def serving(found: Programs, folder: Path, *, target: int, port: int, rule_file: Path) -> Iterator[Server]:
    """Run Prometheus, scraping the target and evaluating the rules each second."""
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rule_file)],
        "scrape_configs": [
            {
                "job_name": "lifeboat",
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{target}"]}],
            }
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command: Sequence[str | Path] = [
        found.prometheus,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.console.templates=",
        "--web.console.libraries=",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "GOMAXPROCS": "1"})
        try:
            deadline = time.monotonic() + 60
            while not _ready(port):
                said = (folder / "prometheus.log").read_text(encoding="utf-8")
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.1)
            yield Server(port)
        finally:
            process.terminate()
            process.wait(30)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    # Before the tests: the processes that share them have no network to download anything from.
    programs()
