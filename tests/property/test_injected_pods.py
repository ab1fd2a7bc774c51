"""Random pods: patched they are valid, have what they had, and are not patched twice."""

import copy
import json
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "injector"))

from patched_pods import DEFAULTS, apply, rule_faults, rules, schema_faults, sidecar_of

from costd.injector.outcome import NOT_LET_IN
from costd.injector.patch import inject
from costd.injector.wishes import READERS

NAMES = st.sampled_from(["a", "b", "c", "app", "proxy", "istio-proxy", "migrate"])
WORDS = st.text("abcXYZ019 ./:,*-_@$(){}\\'\"é", max_size=12)
VOLUMES = [{"name": name, "emptyDir": {}} for name in ("one", "two")]
ENV = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["A", "B", "COSTD_SOCKET", "COSTD_ADDRESS"]), "value": WORDS}
    ),
    unique_by=lambda each: each["name"],
    max_size=3,
)
MOUNTS = st.lists(
    st.builds(
        lambda name, path: {"name": name, "mountPath": path},
        st.sampled_from(["one", "two"]),
        st.sampled_from(["/run", "/data", "/run/other"]),
    ),
    unique_by=lambda each: each["mountPath"],
    max_size=2,
)
AMOUNTS = st.fixed_dictionaries(
    {}, optional={n: st.sampled_from(["1", "1000m", "2"]) for n in ("cpu", "memory")}
)
CONTAINERS = st.fixed_dictionaries(
    {"name": NAMES, "image": st.just("i")},
    optional={
        "env": ENV,
        "volumeMounts": MOUNTS,
        "resources": st.fixed_dictionaries({}, optional={"limits": AMOUNTS, "requests": AMOUNTS}),
        "ports": st.just([{"containerPort": 9464}]),
        "tty": st.booleans(),
    },
)
LABELS = st.dictionaries(
    st.sampled_from(["app", "costd.dev/label-team", "costd.dev/label-run", "tier"]),
    st.text("abc-.", min_size=1, max_size=5).map(lambda text: f"x{text}x"),
)


@st.composite
def pods(draw):
    """A pod that the API server would take."""
    found = draw(st.lists(CONTAINERS, min_size=1, max_size=6, unique_by=lambda each: each["name"]))
    cut = draw(st.integers(0, len(found) - 1))
    spec = {"containers": found[cut:], "volumes": VOLUMES}
    if cut:
        spec["initContainers"] = [
            each | draw(st.sampled_from([{}, {"restartPolicy": "Always"}])) for each in found[:cut]
        ]
    for key, values in (
        ("restartPolicy", ["Always", "Never"]),
        ("terminationGracePeriodSeconds", [0, 5, 60]),
        ("shareProcessNamespace", [True]),
        ("securityContext", [{}, {"fsGroup": 7}]),
        ("resources", [{"limits": {"cpu": "4"}}]),
        ("hostNetwork", [True, False]),
    ):
        if draw(st.booleans()):
            spec[key] = draw(st.sampled_from(values))
    return {"metadata": {"generateName": "p-", "labels": draw(LABELS)}, "spec": spec}


SETTINGS = st.sampled_from(
    [
        DEFAULTS,
        rules(host_network=True, sidecar_mode="container"),
        rules(sidecar_coordinator="c:1", sidecar_coordinator_tls="t", labels="team=namespace"),
        rules(sidecar_kill_switches="none", sidecar_metrics_port="none", behind="a,b"),
    ]
)


def kept(before, after):
    """Whether everything is still there: fields as they were, lists grown at most."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(kept(value, after.get(key)) for key, value in before.items())
    if isinstance(before, list) and isinstance(after, list):
        rest = iter(after)
        return all(any(kept(each, one) for one in rest) for each in before)
    return before == after


@given(pods(), SETTINGS)
@settings(max_examples=40)
def test_a_random_pod_is_valid_once_patched_and_keeps_what_it_had(pod, of):
    before = copy.deepcopy(pod)
    assert not schema_faults(pod)
    outcome = inject(pod, "research", of)
    assert pod == before
    after = apply(pod, json.loads(json.dumps(outcome.patch)))
    if outcome.patch:
        assert sidecar_of(after)
        assert not schema_faults(after)
        assert not rule_faults(after)
        assert kept(before, after)
        again = inject(after, "research", of)
        assert (again.reason, again.patch) == ("already_injected", ())


@given(st.dictionaries(st.sampled_from([*READERS, "other"]), WORDS, max_size=3), pods())
@settings(max_examples=40)
def test_whatever_annotations_say_a_pod_is_patched_soundly_or_kept_out(words, pod):
    pod["metadata"]["annotations"] = {
        f"costd.dev/{name.replace('_', '-')}": value for name, value in words.items()
    }
    outcome = inject(pod, "research", DEFAULTS)
    if outcome.patch:
        after = apply(pod, outcome.patch)
        assert not schema_faults(after)
        assert not rule_faults(after)
    else:
        assert outcome.reason in NOT_LET_IN or outcome.reason == "host_network"
        assert outcome.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "spec", "containers", "name", "env", "volumes", "labels"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSON)
@settings(max_examples=40)
def test_whatever_comes_in_place_of_a_pod_gets_an_answer(anything):
    assert inject(anything, "research", DEFAULTS).message
