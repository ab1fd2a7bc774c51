"""The commands of docs/operating/security.md, run as they stand there."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from costd.testing import DaemonProcess
from costd.testing.certifier import Certifier
from costd.trust import Kind, Role, TlsFiles, channel_credentials
from costd.wire.pb import control_pb2, control_pb2_grpc

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operating/security.md").read_text()
BLOCKS = [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)]
LISTEN = "127.0.0.1:7443"


@pytest.fixture
def shell(tmp_path):
    """Run a line as a person would, in a directory of its own and with a port that is free."""
    shutil.copy(ROOT / "policies/quickstart.yaml", tmp_path / "policy.yaml")
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{reserved.getsockname()[1]}"
    environ = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COSTD_DATA": str(tmp_path / "data"),
        "COSTD_SOCKET": str(tmp_path / "s" / "costd.sock"),
        "COSTD_METRICS_LISTEN": "off",
        "NO_COLOR": "1",
    }
    daemons = []

    def run(line):
        line = line.replace(LISTEN, listen)
        if line.startswith("costd serve"):
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=tmp_path, env=environ, stderr=subprocess.PIPE
            )
            daemons.append(process)
            for said in process.stderr:
                if b'"serving"' in said:
                    return ""
            raise AssertionError(f"{line}: ended with {process.wait()}")
        ended = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    yield run
    for process in daemons:
        process.terminate()
        process.communicate()


def test_five_commands_set_it_up(shell):
    assert len(BLOCKS[0]) == 5
    said = [shell(line) for line in BLOCKS[0]]
    assert said[-1].startswith("costd ")
    # The role that the page gives ann is enough for what an operator does, and not for more.
    shown = BLOCKS[0][-1].removeprefix("costctl status")
    shell(f"costctl kill --reason drill --scope team=none --id k {shown}")
    shell(f"costctl release k {shown}")
    with pytest.raises(
        AssertionError, match="ReloadPolicy needs the role admin, and ann is operator"
    ):
        shell(f"costctl policy reload {shown}")
    audited = shell(f"costctl audit {shown}")
    assert re.search(r"ann +kill_engaged", audited)
    assert re.search(r"ann +call_refused +ReloadPolicy", audited)


@pytest.mark.skipif(shutil.which("jq") is None, reason="the page reads JSON with jq")
def test_a_role_token_does_without_a_certificate(shell):
    for line in BLOCKS[0][:2]:
        shell(line)
    said = [shell(line) for line in BLOCKS[1]]
    assert said[-1].startswith("costd ")
    shown = BLOCKS[1][-1].removeprefix("costctl status")
    with pytest.raises(
        AssertionError, match="EngageKill needs the role operator, and ann is viewer"
    ):
        shell(f"costctl kill --reason drill {shown}")


def test_a_ca_is_rotated_as_the_page_says(tmp_path):
    old, new = Certifier(tmp_path / "old", "old CA"), Certifier(tmp_path / "new", "new CA")
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes(old.ca.read_bytes())
    server = old.pair(Kind.DAEMON, "host-7")
    flags = ("--tls-cert", str(server.certificate), "--tls-key", str(server.key))

    def ask(channel):
        stub = control_pb2_grpc.ControlStub(channel)
        try:
            stub.GetStatus(control_pb2.GetStatusRequest(), timeout=20)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    def channel(certifier):
        shown = certifier.pair(Kind.OPERATOR, "ann", Role.VIEWER)
        files = TlsFiles(certificate=shown.certificate, key=shown.key, ca=bundle)
        return grpc.secure_channel(target, channel_credentials(files))

    with DaemonProcess(
        ROOT / "policies/quickstart.yaml",
        *flags,
        *("--tls-ca", str(bundle), "--control-listen", "127.0.0.1:0"),
    ) as daemon:
        target = daemon.wait_for("serving")["control_listen"]
        with channel(old) as open_since:
            assert ask(open_since) == "OK"
            bundle.write_bytes(old.ca.read_bytes() + new.ca.read_bytes())
            with channel(new) as renewed:
                assert ask(renewed) == "OK"
            issued = new.issued(Kind.DAEMON, "host-7")
            server.key.write_bytes(issued.key_pem)
            server.certificate.write_bytes(issued.certificate_pem)
            bundle.write_bytes(new.ca.read_bytes())
            with channel(new) as renewed:
                assert ask(renewed) == "OK"
            assert ask(open_since) == "UNAUTHENTICATED"
