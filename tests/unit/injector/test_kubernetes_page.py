"""The page lists every annotation and every reason that there is, and no other."""

import re
from pathlib import Path

from patched_pods import DEFAULTS, pod_of

from costd.injector.outcome import NOT_LET_IN, Reason
from costd.injector.patch import inject
from costd.injector.wishes import READERS

PAGE = (Path(__file__).parents[3] / "docs" / "operating" / "kubernetes.md").read_text()


def rows(heading):
    """The rows of the tables under a heading, cell by cell."""
    _, found, rest = PAGE.partition(f"## {heading}\n")
    assert found
    part = rest.partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]


def test_every_annotation_is_on_the_page():
    listed = [
        name
        for row in rows("Annotations")
        for name in re.findall(r"`costd\.dev/([a-z-]+)`", row[0])
    ]
    assert sorted(listed) == sorted(["inject", *(field.replace("_", "-") for field in READERS)])


def test_every_reason_is_on_the_page_with_what_becomes_of_the_pod():
    listed = {
        Reason(name): row[1]
        for row in rows("What becomes of a pod")
        for name in re.findall(r"`([a-z_]+)`", row[0])
    }
    assert set(listed) == set(Reason)
    for reason, becomes in listed.items():
        assert (becomes == "is not let in") == (reason in NOT_LET_IN)


def test_the_labels_that_the_page_calls_defaults_are_fixed():
    listed = {row[0].strip("`") for row in rows("Labels that agents cannot claim")}
    after = inject(pod_of(), "research", DEFAULTS).pod
    env = {each["name"]: each.get("value") for each in after["spec"]["initContainers"][0]["env"]}
    assert {pair.partition("=")[0] for pair in env["COSTD_LABELS_FIXED"].split(",")} == listed
