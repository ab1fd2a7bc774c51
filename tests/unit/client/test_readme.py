"""The README's code, run from top to bottom."""

import asyncio
import re
from pathlib import Path

from costd_client.pb import admission_pb2 as pb

README = Path(__file__).parents[3] / "clients/python/README.md"


def test_the_readmes_code_runs(daemon, provider, monkeypatch, tmp_path, capsys):
    admission = daemon.admission
    for name, value in {
        "COSTD_ADDRESS": daemon.address,
        "OPENAI_BASE_URL": provider.openai_url,
        "OPENAI_API_KEY": "any",
        "ANTHROPIC_BASE_URL": provider.url,
        "ANTHROPIC_API_KEY": "any",
    }.items():
        monkeypatch.setenv(name, value)
    admission.then("Admit", admission._admit, pb.Decision(verdict=pb.VERDICT_DENY))
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names = {}
    for block in blocks:
        code = block.replace("/tmp/costd-spool", str(tmp_path / "spool"))
        exec(compile(code, README.name, "exec"), names)
    assert "word0" in asyncio.run(names["hello"]())
    assert "ALLOW 77" in capsys.readouterr().out
    for client in ("costd", "patient", "relaxed", "careful"):
        names[client].close()
    names["client"].close()
    assert [ask.task_class for ask in admission.of("Admit")] == [
        "draft",
        "draft",
        "code_review",
        "draft",
        "draft",
        "chat",
    ]
    assert len(admission.of("Settle")) == 5
