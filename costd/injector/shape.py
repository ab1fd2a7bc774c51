"""What is read of a pod, and the types that it must have; everything else is passed over."""

from typing import Annotated, Any, TypedDict

import msgspec

from costd.injector.outcome import NotPatched, Pod, Reason


class _VolumeMount(TypedDict, total=False):
    name: str
    mountPath: str | None


class _Port(TypedDict, total=False):
    containerPort: int


class _Resources(TypedDict, total=False):
    limits: dict[str, Any] | None
    requests: dict[str, Any] | None


class _Named(TypedDict):
    name: str


class _Source(TypedDict, total=False):
    fieldRef: dict[str, Any] | None


class _Variable(_Named, total=False):
    valueFrom: _Source | None


class _Security(TypedDict, total=False):
    windowsOptions: dict[str, Any] | None


class _Container(_Named, total=False):
    env: list[_Variable] | None
    volumeMounts: list[_VolumeMount] | None
    ports: list[_Port] | None
    resources: _Resources | None
    securityContext: _Security | None


class _PodSecurity(TypedDict, total=False):
    fsGroup: int | None
    windowsOptions: dict[str, Any] | None


class _Os(TypedDict, total=False):
    name: str


class _Volume(_Named, total=False):
    persistentVolumeClaim: dict[str, Any] | None


class _Spec(TypedDict, total=False):
    initContainers: list[_Container] | None
    volumes: list[_Volume] | None
    hostNetwork: bool | None
    shareProcessNamespace: bool | None
    hostPID: bool | None
    terminationGracePeriodSeconds: Annotated[int, msgspec.Meta(le=2**31)] | None
    securityContext: _PodSecurity | None
    nodeSelector: dict[str, str] | None
    os: _Os | None
    restartPolicy: str | None
    resources: dict[str, Any] | None


class _SpecWithContainers(_Spec):
    containers: list[_Container]


class _Metadata(TypedDict, total=False):
    name: str | None
    generateName: str | None
    labels: dict[str, str] | None
    annotations: dict[str, str] | None


class _Pod(TypedDict):
    metadata: _Metadata
    spec: _SpecWithContainers


def check_shape(pod: Any) -> Pod:
    """See that what is read of a pod has the types it must have.

    Errors: NotPatched, with the path of what has not.
    """
    try:
        msgspec.convert(pod, _Pod)
    except (msgspec.ValidationError, RecursionError) as error:
        raise NotPatched(Reason.MALFORMED, f"the pod is not well formed: {error}") from error
    if not pod["spec"]["containers"]:
        raise NotPatched(Reason.MALFORMED, "the pod is not well formed: it has no containers")
    checked: Pod = pod
    return checked
