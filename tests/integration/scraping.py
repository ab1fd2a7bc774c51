"""A real Prometheus that scrapes what tests start, and its tool for rules."""

import json
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from costd.testing.process import ANSWER_S, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
EVERY = "400ms"


def program(name):
    """Find a program of Prometheus; a test that has none is skipped."""
    found = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: `make setup` unpacks Debian's, or install prometheus")
    return found


class PrometheusServer:
    """Scrapes targets every 0.4 s, with the rules that are delivered."""

    def __init__(self, folder, jobs):
        """`jobs` are addresses by job name."""
        self._program = program("prometheus")
        self._folder = folder
        self.targets_count = sum(map(len, jobs.values()))
        self._log = folder / "log"
        rules = [str(DEPLOY / "prometheus" / f"{name}.yaml") for name in ("recording", "alerts")]
        scraped = [
            {"job_name": job, "static_configs": [{"targets": targets}]}
            for job, targets in jobs.items()
        ]
        every = {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY}
        # JSON is YAML.
        (folder / "prometheus.yaml").write_text(
            json.dumps({"global": every, "rule_files": rules, "scrape_configs": scraped})
        )
        self._process = None
        self.url = ""

    def __enter__(self):
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                    "--log.format=json",
                ],
                stderr=log,
            )
        try:
            self.url = f"http://{wait_until(self._address, 'Prometheus listens')}"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error):
        self._process.terminate()
        self._process.wait(ANSWER_S)

    def _address(self):
        assert self._process.poll() is None, self._log.read_text()
        lines = [
            json.loads(line)
            for line in self._log.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        ready = any(line.get("msg", "").startswith("Server is ready") for line in lines)
        told = [line["address"] for line in lines if line.get("msg", "") == "Listening on"]
        return told[0] if told and ready else None

    def ask(self, path, **parameters):
        """Ask its API; an error of a query is the test's."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=ANSWER_S) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success"
        return answer["data"]

    def samples(self, expression):
        """What an instant query returns: labels and value of each sample."""
        result = self.ask("query", query=expression)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]
