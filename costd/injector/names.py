"""What pods, containers, volumes and paths are called; docs/operating/kubernetes.md."""

from typing import Final

PREFIX: Final = "costd.dev/"
INJECT: Final = f"{PREFIX}inject"
"""Label or annotation: `true` asks for a sidecar, `false` wants none."""
INJECTED: Final = f"{PREFIX}injected"
"""Annotation of a pod that has one: the version of costd that put it there."""
LABEL: Final = f"{PREFIX}label-"
"""Label `costd.dev/label-KEY: value` of a pod: the costd label KEY of every ask in it."""

CONTAINER: Final = "costd"
USER: Final = 65532
GROUP: Final = 65532

RUN: Final = "costd-run"
RUN_PATH: Final = "/run/costd"
SOCKET_PATH: Final = f"{RUN_PATH}/agent/costd.sock"
SOCKET_MODE: Final = "0666"
"""Containers of a pod run as any user; whoever mounts the volume is an agent."""
SOCKET_VARIABLE: Final = "COSTD_SOCKET"
ADDRESS_VARIABLE: Final = "COSTD_ADDRESS"
"""Clients look at this one first."""

DATA: Final = "costd-data"
DATA_PATH: Final = "/var/lib/costd"
CONTROL_PATH: Final = f"{DATA_PATH}/run/control.sock"

POLICY: Final = "costd-policy"
POLICY_PATH: Final = "/etc/costd/policy"
KILLS: Final = "costd-kills"
KILLS_PATH: Final = "/etc/costd/kills"
TLS: Final = "costd-tls"
TLS_PATH: Final = "/etc/costd/tls"

METRICS_PORT_NAME: Final = "costd-metrics"
METRICS_PORT: Final = 9464

MIRROR: Final = "kubernetes.io/config.mirror"
"""Annotation of the image that the API keeps of a static pod; the kubelet owns it."""
SAFE_TO_EVICT: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
"""Annotation that lists local volumes which do not keep the autoscaler from removing a node."""
