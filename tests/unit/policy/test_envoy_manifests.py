"""The manifests for meshes have the filters of the Envoy configuration that other tests run."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from costd.policy import parse_policy

FOLDER = Path(__file__).parents[3] / "policies" / "envoy"


def read(name):
    return list(YAML(typ="safe").load_all(FOLDER / name))


@pytest.fixture(scope="module")
def manager():
    """The connection manager of the configuration that is run."""
    (config,) = read("envoy.yaml")
    (listener,) = config["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def without_cluster(filters):
    """Filters, and where they find the daemon taken out of them."""
    for each in filters:
        service = each["typed_config"].get("rate_limit_service")
        if service:
            service["grpc_service"] = None
    return filters


def test_istios_patches_put_the_filters_before_the_router_in_their_order(manager):
    (manifest,) = read("istio.yaml")
    first, *rest = manifest["spec"]["configPatches"]
    merged = first["patch"]["value"]["typed_config"]
    extensions = "early_header_mutation_extensions"
    assert merged[extensions] == manager[extensions]
    assert {each["patch"]["operation"] for each in rest} == {"INSERT_BEFORE"}
    put = [each["patch"]["value"] for each in rest]
    assert without_cluster(put) == without_cluster(manager["http_filters"][:-1])


def test_envoy_gateways_patches_put_the_filters_first_and_bring_a_cluster(manager):
    (manifest,) = read("envoy-gateway.yaml")
    first, *rest, cluster = manifest["spec"]["jsonPatches"]
    extensions = "early_header_mutation_extensions"
    assert first["operation"]["value"] == manager[extensions]
    paths = [each["operation"]["path"].rsplit("/", 1)[1] for each in rest]
    assert paths == [str(at) for at in range(len(rest))]
    put = [each["operation"]["value"] for each in rest]
    assert without_cluster(put) == without_cluster(manager["http_filters"][:-1])
    assert cluster["operation"]["value"]["name"] == "costd"


def test_the_rule_for_contour_loads():
    text = (FOLDER / "contour.yaml").read_text()
    rule = "\n".join(re.findall(r"^#   (.*)$", text, re.MULTILINE))
    (made,) = parse_policy(f"version: 1\n{rule}\n", "contour.yaml").envoy
    entries = read("contour.yaml")[2]["spec"]["routes"][0]["rateLimitPolicy"]["global"]
    keys = [next(iter(each.values())) for each in entries["descriptors"][0]["entries"]]
    named = {each.get("key") or each["descriptorKey"] for each in keys}
    sources = {*made.labels.values(), *made.fields.values()}
    assert {source.entry for source in sources if source.entry} <= named
