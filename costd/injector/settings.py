"""What an operator sets for one injector: flags, then environment, then file, then defaults."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from costd import __version__
from costd.configuration import Configured, Pairs, SettingsError, Words, load
from costd.endpoint import Endpoint, endpoint_or_fault, parse_endpoint
from costd.injector.labels import source_problem
from costd.injector.patch import Rules
from costd.injector.wishes import READERS, Sidecar
from costd.serving.settings import (
    LogFormat,
    LogLevel,
    MetricsListen,
    TlsKey,
    certificate_faults,
    metrics_faults,
)

__all__ = ["Settings", "SettingsError", "load_settings"]

NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SIDECAR: Final = "sidecar_"


def _own_namespace() -> str:
    """Read the namespace that this pod is in."""
    try:
        return NAMESPACE_FILE.read_text().strip() or "costd-system"
    except OSError:
        return "costd-system"


class Settings(Configured):
    """Everything `costd injector` can be told; docs/operating/settings.md lists it."""

    listen: str = Field(
        "127.0.0.1:8443", description="TCP address host:port for the API server; HTTPS only."
    )
    tls_cert: Path | None = Field(
        None, description="Certificate (PEM) for the webhook's service. Read again when it changes."
    )
    tls_key: TlsKey = None
    bootstrap: bool = Field(
        default=False,
        description="Make CA and certificate, keep them in a Secret, renew them, and tell the API "
        "server of the CA.",
    )
    namespace: str = Field(
        default_factory=_own_namespace,
        min_length=1,
        max_length=63,
        description="The injector's own namespace; its pods get no sidecar.",
    )
    service: str = Field(
        "costd-injector", min_length=1, max_length=63, description="The webhook's Service."
    )
    service_account: Path = Field(
        Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        description="With `bootstrap`: directory of the pod's token and the API's CA.",
    )
    secret: str = Field(
        "costd-injector-tls",
        min_length=1,
        max_length=253,
        description="With `bootstrap`: the Secret that CA and certificate are kept in.",
    )
    webhook: str = Field(
        "costd-injector",
        min_length=1,
        max_length=253,
        description="With `bootstrap`: the MutatingWebhookConfiguration whose caBundle is filled.",
    )
    namespaces_excluded: Words = Field(
        default=("kube-system", "kube-public", "kube-node-lease"),
        description="Namespaces whose pods get no sidecar whatever they say: name,….",
    )
    annotations: Words = Field(
        default=("*",),
        description="Annotations by which pods may choose for themselves, without `costd.dev/`: "
        "cpu,memory,…; `*` for all.",
    )
    labels: Pairs = Field(
        default={
            "namespace": "namespace",
            "service_account": "service_account",
            "team": "costd.dev/label-team|namespace",
        },
        description="Labels of every ask in a pod, and what they are read from: "
        "label=source|source,…; the first source that the pod has; one without any is not let in. "
        "Sources: namespace, pod, service_account, node, or the key of a pod's label; last, "
        "`claimed` for what agents say.",
    )
    behind: Words = Field(
        default=(
            "istio-init",
            "istio-validation",
            "istio-proxy",
            "linkerd-init",
            "linkerd-network-validator",
            "linkerd-proxy",
        ),
        description="Init containers that stay ahead of the sidecar where they come first: a "
        "mesh's.",
    )
    host_network: bool = Field(
        default=False, description="Put sidecars into pods on their node's network, too."
    )
    unfit: Literal["allow", "deny"] = Field(
        "allow",
        description="What becomes of pods that no sidecar can be put into (Windows, host "
        "network): let in without one, or not let in.",
    )
    sidecar_image: str = Field(
        default_factory=lambda: f"costd:{__version__}", description="Image of the sidecar."
    )
    sidecar_image_pull_policy: str = Field(
        "", description="When it is pulled: Always, IfNotPresent or Never."
    )
    sidecar_mode: str = Field(
        "native",
        description="`native` (an init container that goes on; Kubernetes 1.29 or later), or "
        "`container` (an ordinary one).",
    )
    sidecar_policy: str = Field(
        "costd-policy/policy.yaml",
        description="ConfigMap and file of the policy, in the pod's namespace; not used with a "
        "coordinator.",
    )
    sidecar_kill_switches: str = Field(
        "costd-kills/kills.yaml",
        description="ConfigMap and file of kill switches, in the pod's namespace; it need not be "
        "there. `none` for none.",
    )
    sidecar_coordinator: str = Field(
        "", description="Coordinators that sidecars share budgets by: host:port,…."
    )
    sidecar_coordinator_tls: str = Field(
        "",
        description="Secret in the pod's namespace with tls.crt, tls.key and ca.crt for the "
        "coordinator.",
    )
    sidecar_coordinator_insecure: bool = Field(
        default=False,
        description="Sidecars talk to the coordinator without TLS: nothing encrypts or "
        "authenticates it.",
    )
    sidecar_claims: str = Field(
        "", description="Critical task classes that agents may claim: class,…; `*` for all."
    )
    sidecar_cpu: str = Field("50m", description="CPU that is requested; `none` for none.")
    sidecar_memory: str = Field("96Mi", description="Memory that is requested; `none` for none.")
    sidecar_cpu_limit: str = Field("", description="Most CPU.")
    sidecar_memory_limit: str = Field("256Mi", description="Most memory; `none` for no limit.")
    sidecar_data_size: str = Field(
        "", description="Most that the books may occupy; a pod whose books do is evicted."
    )
    sidecar_drain_s: str = Field(
        "10",
        description="How long a stopping sidecar waits for open calls, and then for its "
        "coordinator, in s.",
    )
    sidecar_metrics_port: str = Field(
        "9464", description="Port of the sidecar's Prometheus endpoint; `none` for none."
    )
    sidecar_log_level: str = Field("info", description="Least level that sidecars log.")
    sidecar_otlp_endpoint: str = Field(
        "",
        description="Collector that sidecars export to, whose image then has the extra `otlp`: "
        "http://host:port, `$(HOST_IP)` for the pod's node.",
    )
    metrics_listen: MetricsListen = "127.0.0.1:9468"
    listen_insecure: bool = Field(
        default=False,
        description="Serve metrics also where others can reach them: nothing encrypts or "
        "authenticates them.",
    )
    body_bytes_max: int = Field(
        8_388_608, ge=65_536, description="Largest AdmissionReview accepted, in bytes."
    )
    deadline_s: float = Field(
        5.0,
        gt=0,
        le=30,
        description="How long a review may take, in s; less than the webhook's timeoutSeconds.",
    )
    connections_count_max: int = Field(
        256,
        ge=4,
        description="Connections open at once; of more, the address that has the most loses one.",
    )
    drain_s: float = Field(
        5.0, ge=0, le=3_600, description="How long a stopping injector waits for reviews, in s."
    )
    log_level: LogLevel = "info"
    log_format: LogFormat = "json"

    def faults(self) -> Iterator[str]:
        """Yield what is wrong between settings, a line each, that begins with the one to change."""
        yield from self._address_faults()
        yield from self._rule_faults()
        yield from certificate_faults(self)
        if self.tls_cert is not None and self.bootstrap:
            yield "bootstrap: there is a certificate; take one of both away"

    def _address_faults(self) -> Iterator[str]:
        endpoint, fault = endpoint_or_fault("listen", self.listen)
        if fault:
            yield fault
        elif endpoint is None:
            yield "listen: the API server needs an address; 127.0.0.1:0 takes a free port"
        yield from metrics_faults(self.metrics_listen, is_meant=self.listen_insecure)

    def _rule_faults(self) -> Iterator[str]:
        for key, sources in self.labels.items():
            problem = source_problem(key, sources)
            if problem:
                yield f"labels: {problem}"
        for each in self.annotations:
            if each != "*" and each.replace("-", "_") not in READERS:
                yield f"annotations: there is no {each!r}"
        fields, problems = self._read()
        yield from problems
        if not problems:
            sidecar = Sidecar(**fields)
            yield from (f"{SIDECAR}{name}: {why}" for name, why in sidecar.problems())

    def _read(self) -> tuple[dict[str, Any], list[str]]:
        """Read what every sidecar is like, as its annotations would be read."""
        fields: dict[str, Any] = {"coordinator_insecure": self.sidecar_coordinator_insecure}
        problems = []
        for field, read in READERS.items():
            written = getattr(self, f"{SIDECAR}{field}", "").strip()
            if not written:
                continue
            try:
                fields[field] = read(written)
            except ValueError as error:
                problems.append(f"{SIDECAR}{field}: {error}")
        return fields, problems

    @property
    def rules(self) -> Rules:
        """What holds for every pod."""
        fields, _ = self._read()
        return Rules(
            sidecar=Sidecar(**fields),
            version=__version__,
            namespaces_excluded=(*self.namespaces_excluded, self.namespace),
            labels=self.labels,
            annotations=self.annotations,
            behind=self.behind,
            host_network=self.host_network,
            refuse_unfit=self.unfit == "deny",
        )

    @property
    def endpoint(self) -> Endpoint:
        """Where the API server is served."""
        endpoint = parse_endpoint("listen", self.listen)
        assert endpoint is not None  # `faults` says so before
        return endpoint

    @property
    def metrics_endpoint(self) -> Endpoint | None:
        """Where metrics are served, None for nowhere."""
        return parse_endpoint("metrics_listen", self.metrics_listen)


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Put the settings together from flags, `COSTD_*`, the `config` file and defaults.

    Errors: SettingsError with one line per fault: source, field, what is wrong.
    """
    return load(Settings, flags)
