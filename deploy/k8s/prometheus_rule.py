"""Write the PrometheusRule of base/monitoring from the rules of deploy/prometheus.

    python deploy/k8s/prometheus_rule.py

kustomize can put no file into the middle of an object, so that a copy is kept; `make manifests`
writes it, and a test sees that it is up to date.
"""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("recording.yaml", "alerts.yaml")
TARGET = ROOT / "deploy/k8s/base/monitoring/rules.yaml"
HEAD = "# From deploy/prometheus, by `make manifests`; change it there.\n"


def groups() -> list[Any]:
    """Read all groups of rules, in the order in which they build on each other."""
    found = []
    for name in SOURCES:
        found += YAML(typ="safe").load(ROOT / "deploy" / "prometheus" / name)["groups"]
    return found


def main() -> None:
    """Do what the module says."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "costd"},
        "spec": {"groups": groups()},
    }
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.width = 100
    with TARGET.open("w") as file:
        file.write(HEAD)
        yaml.dump(rule, file)


if __name__ == "__main__":
    main()
