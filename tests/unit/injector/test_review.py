"""AdmissionReviews as API servers send them, and what is none."""

import base64
import json

import pytest
from patched_pods import DEFAULTS, apply, pod_of, rules, schema_faults, sidecar_of

from costd.injector.review import NotReviewed, review

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"


def request_of(pod, **more):
    """A review as an API server sends it, with all that it says besides."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": UID,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "research",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "uid": "2d3a",
                "groups": ["system:serviceaccounts", "system:authenticated"],
            },
            "object": {"apiVersion": "v1", "kind": "Pod", **pod} if pod else None,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        }
        | more,
    }


def answered(body, of=DEFAULTS, **more):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = json.loads(review(raw, of, **more).body)
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    return answer["response"]


def test_a_pod_of_a_deployment_is_patched():
    pod = pod_of(labels={"app": "agents"})
    response = answered(request_of(pod))
    assert (response["uid"], response["allowed"], response["patchType"]) == (UID, True, "JSONPatch")
    assert response["auditAnnotations"]["outcome"] == "injected"
    after = apply(pod, json.loads(base64.b64decode(response["patch"], validate=True)))
    assert sidecar_of(after) is not None
    assert not schema_faults(after)


def test_a_dry_run_is_answered_alike():
    assert answered(request_of(pod_of(), dryRun=True)) == answered(request_of(pod_of()))


def test_a_pod_that_is_left_alone_has_its_reason_in_the_answer():
    response = answered(request_of(pod_of(labels={"costd.dev/inject": "false"})))
    assert response["allowed"] is True
    assert response["auditAnnotations"]["outcome"] == "opted_out"
    assert response["status"]["message"] == "the pod says costd.dev/inject: false"
    assert not response.keys() & {"patch", "patchType", "warnings"}


def test_a_pod_that_is_kept_out_has_a_status_that_kubectl_prints():
    response = answered(request_of(pod_of(annotations={"costd.dev/nonsense": "1"})))
    assert response["allowed"] is False
    assert response["status"]["code"] == 400
    assert response["status"]["message"].startswith("costd: costd.dev/nonsense: no such annotation")
    assert "patch" not in response
    unfit = answered(request_of(pod_of(hostNetwork=True)), rules(unfit="deny"))
    assert (unfit["allowed"], unfit["status"]["code"]) == (False, 403)


def test_warnings_are_few_and_short():
    named = [{"name": f"c{n}-{'x' * 50}", "image": "i"} for n in range(20)]
    pod = pod_of(*[each | {"env": [{"name": "COSTD_ADDRESS", "value": "a"}]} for each in named])
    warnings = answered(request_of(pod))["warnings"]
    assert len(warnings) == 8
    assert all(len(each) <= 256 for each in warnings)


def test_what_is_logged_of_a_pod_is_short():
    """Whoever reaches the port may send eight megabytes of a name, and logs fill disks."""
    pod = pod_of(annotations={f"costd.dev/{'a' * 100_000}": "x"})
    pod["metadata"]["generateName"] = "x" * 100_000
    done = review(json.dumps(request_of(pod, namespace="y" * 100_000)).encode(), DEFAULTS)
    assert len(done.outcome.message) <= 1_024
    assert len(done.name) + len(done.namespace) <= 2 * 253
    named = [{"name": f"c{n}", "image": "i", "env": [{"name": "COSTD_ADDRESS"}]} for n in range(99)]
    pod = json.dumps(request_of(pod_of(*named))).encode()
    assert len(review(pod, DEFAULTS).outcome.warnings) == 8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"operation": "UPDATE"}, "not_created"),
        ({"operation": "DELETE", "object": None}, "not_created"),
        ({"operation": "CONNECT", "subResource": "exec"}, "not_created"),
        ({"operation": "CREATE", "subResource": "eviction"}, "not_created"),
        ({"operation": "UPDATE", "subResource": "ephemeralcontainers"}, "not_created"),
        ({"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}}, "not_a_pod"),
        ({"kind": {"group": "policy", "version": "v1", "kind": "Eviction"}}, "not_a_pod"),
        ({"namespace": "kube-system"}, "namespace_excluded"),
    ],
)
def test_what_is_not_a_new_pod_passes_unchanged(change, reason):
    response = answered(request_of(pod_of(), **change))
    assert (response["allowed"], response["auditAnnotations"]["outcome"]) == (True, reason)
    assert "patch" not in response


@pytest.mark.parametrize("change", [{"object": None}, {"object": "pod"}, {"namespace": ""}])
def test_a_creation_of_nothing_is_refused(change):
    response = answered(request_of(pod_of(), **change))
    assert (response["allowed"], response["status"]["code"]) == (False, 400)


def test_the_namespace_of_the_request_counts_and_not_the_pods_own_word():
    pod = pod_of()
    pod["metadata"]["namespace"] = "kube-system"
    assert answered(request_of(pod))["auditAnnotations"]["outcome"] == "injected"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no AdmissionReview in JSON"),
        (b"not json", "no AdmissionReview in JSON"),
        (b"\xff\xfe", "no AdmissionReview in JSON"),
        (b"[" * 100_000, "no AdmissionReview in JSON"),
        (b"[]", "no AdmissionReview in JSON"),
        (b"{}", "is of no kind of no version"),
        ({"apiVersion": "v1", "kind": "Pod"}, "is Pod of v1, and this webhook takes"),
        (
            {**request_of(pod_of()), "apiVersion": "admission.k8s.io/v1beta1"},
            'list only "v1" in admissionReviewVersions',
        ),
        (
            {**request_of(pod_of()), "apiVersion": "admission.k8s.io/v2"},
            "of admission.k8s.io/v2, and this webhook takes",
        ),
        ({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}, "has no request"),
        (
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {}},
            "has no request",
        ),
        (request_of(pod_of(), uid=""), "uid has 0 characters"),
        (request_of(pod_of(), uid=7), "not well formed: Expected `str`, got `int`"),
        (request_of(pod_of(), kind="Pod"), "not well formed"),
    ],
)
def test_what_is_no_review_is_told_what_is_expected(body, says):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(NotReviewed) as refused:
        review(raw, DEFAULTS)
    assert says in str(refused.value)


def test_a_body_of_more_values_than_memory_holds_is_not_read():
    """Eight megabytes of the smallest ones take half a gigabyte."""
    raw = json.dumps(request_of(pod_of())).encode()
    raw = raw.replace(b'"oldObject": null', b'"oldObject": [' + b"{}," * 300_000 + b"0]")
    with pytest.raises(NotReviewed, match="values, and at most 250000 are read"):
        review(raw, DEFAULTS)


def test_a_body_that_is_not_utf_8_is_refused():
    raw = json.dumps(request_of(pod_of(labels={"a": "x"}))).encode()
    for word in (b"agents-", b'"a"'):
        with pytest.raises(NotReviewed, match="not well formed"):
            review(raw.replace(word, word[:1] + b"\xff" + word[1:]), DEFAULTS)


def test_a_pod_as_deep_as_json_may_be_is_refused_and_nothing_more():
    deep = b'{"a":' * 5_000 + b"1" + b"}" * 5_000
    raw = json.dumps(request_of(pod_of())).encode()
    raw = raw.replace(b'"oldObject": null', b'"oldObject": ' + deep)
    with pytest.raises(NotReviewed, match="recursion"):
        review(raw, DEFAULTS)
