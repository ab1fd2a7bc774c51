"""Whether what a pod brings, a sidecar or a volume, is what we would write now.

A pod may say that it has been injected, and bring a container of our name: what that container
runs, reads and may do must be ours. What other webhooks and the API add is left alone.
"""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, Final

from costd.injector import names

_VARIABLES: Final = ("COSTD_", "POD_", "PYTHON", "LD_", "PATH", "OPENSSL_", "GCONV_", "GLIBC_")
"""What variables begin with that say what the sidecar is and does; costd reads its own in any case
of letters."""
_PATHS: Final = (
    *(names.RUN_PATH, names.DATA_PATH, "/etc/costd"),
    *("/opt/costd", "/usr", "/bin", "/sbin", "/lib", "/lib64"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload"),
)
"""Where its files and its program are: nothing may be mounted there, nor over it."""
_PLAIN: Final = ("command", "args", "envFrom", "restartPolicy", "workingDir", "volumeDevices")
_PROBES: Final = ("startupProbe", "livenessProbe", "readinessProbe")
_TERMINATION: Final = "/dev/termination-log"
"""What the API writes where nothing is said."""
_MODE: Final = 0o644
"""Likewise, of a ConfigMap's files."""


def absolute(mount: Mapping[str, Any]) -> str:
    """Read where something is mounted, as the kubelet does."""
    path: str = mount.get("mountPath") or ""
    return posixpath.normpath(f"/{path.lstrip('/')}")


def is_below(path: str, above: str) -> bool:
    """Tell whether a path is another, or in it."""
    return path == above or path.startswith(f"{above.rstrip('/')}/")


def is_ours(one: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Tell whether a sidecar is the one that we would write now."""
    security = one.get("securityContext") or {}
    ports = one.get("ports") or ()
    return (
        all(security.get(key) == value for key, value in made["securityContext"].items())
        and all(_is_like(one.get(probe), made[probe]) for probe in _PROBES)
        and all(any(_is_like(each, port) for each in ports) for port in made.get("ports", ()))
        and _is_image_ours(one.get("image"), made["image"])
        and bool(_essence(one) == _essence(made))
    )


def is_volume_ours(one: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Tell whether a volume is the one that we would write now."""
    return all(
        one.get(key) == written
        if key == "name"
        else _is_like(one.get(key), written)
        if key == "emptyDir"
        else _source(one.get(key)) == _source(written)
        for key, written in ours.items()
    )


def _source(one: Any) -> Any:
    """Write out a default: files that others choose (`items`) or nobody may read are not ours."""
    if not isinstance(one, dict):
        return None
    return {"defaultMode": _MODE} | {key: value for key, value in one.items() if value is not None}


def _is_image_ours(image: Any, ours: str) -> bool:
    """Tell whether an image has our digest; registries and tags are rewritten on purpose."""
    _, at, digest = ours.partition("@")
    return not at or str(image).endswith(f"@{digest}")


def _is_like(one: Any, ours: Any) -> bool:
    """Tell whether something says what we wrote, whatever was added."""
    if isinstance(ours, dict):
        return isinstance(one, dict) and all(_is_like(one.get(k), v) for k, v in ours.items())
    return bool(one == ours)


def _essence(one: Mapping[str, Any]) -> Sequence[Any]:
    """Reduce a sidecar to what makes it ours."""
    variables = []
    for each in one.get("env") or ():
        if each["name"].upper().startswith(_VARIABLES):
            source = (each.get("valueFrom") or {}).get("fieldRef") or {}
            variables.append((each["name"], each.get("value"), source.get("fieldPath")))
    mounts = {
        (each.get("name"), each.get("mountPath")): (each.get("subPath"), each.get("subPathExpr"))
        for each in one.get("volumeMounts") or ()
        if str(each.get("name")).startswith("costd-") or _is_over_ours(absolute(each))
    }
    plain = [one.get(key) or None for key in _PLAIN]
    ended = one.get("terminationMessagePath") or _TERMINATION
    return [plain, variables, mounts, one.get("lifecycle") or None, ended]


def _is_over_ours(path: str) -> bool:
    return any(is_below(path, ours) or is_below(ours, path) for ours in _PATHS)
