"""`--bootstrap`: a certificate that needs nobody else, and an API server that trusts it."""

import asyncio
import base64
import http.client
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from costd.clock import SystemClock
from costd.injector.cluster import ApiRefused, Cluster
from costd.injector.handshake import Pair
from costd.injector.made import Made, read_made, renewed, write_made
from costd.model.time import NS_PER_S
from costd.telemetry.logs import Log

LOOK_S: Final = 60.0
AGAIN_S: Final = 2.0
"""After a failure, or when another replica was quicker."""
CROSSED_COUNT_MAX: Final = 5
"""So often in a row it may have been another replica; then something else is wrong."""
_CROSSED: Final = frozenset({http.client.CONFLICT, http.client.UNPROCESSABLE_ENTITY})


class Names(NamedTuple):
    """What everything is called."""

    service: str
    namespace: str
    secret: str
    webhook: str

    @property
    def dns(self) -> tuple[str, ...]:
        """The names that the API server calls a service by, and people do."""
        name = f"{self.service}.{self.namespace}.svc"
        return name, f"{name}.cluster.local"

    @property
    def secrets_path(self) -> str:
        """Where Secrets are made."""
        return f"/api/v1/namespaces/{self.namespace}/secrets"

    @property
    def secret_path(self) -> str:
        """Where the Secret is."""
        return f"{self.secrets_path}/{self.secret}"

    @property
    def webhook_path(self) -> str:
        """Where the webhook's configuration is."""
        kind = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
        return f"{kind}/{self.webhook}"


class Bootstrap:
    """Implements `Source` by a Secret that all replicas share."""

    def __init__(
        self,
        cluster: Cluster,
        names: Names,
        log: Log,
        *,
        wall_ns: Callable[[], int] | None = None,
    ) -> None:
        self._cluster, self._names, self._log = cluster, names, log
        clock = SystemClock()
        self._wall_ns = wall_ns or (lambda: clock.now().wall_ns)
        self._made: Made | None = None
        self._pair: Pair | None = None
        self._problem = ""
        self.is_ready = False

    def pair(self) -> Pair | None:
        """Return what is served."""
        return self._pair

    @property
    def ends_s(self) -> int | None:
        """When the certificate in force ends, in Unix seconds."""
        return None if self._made is None else self._made.ends_ns // NS_PER_S

    async def run(self) -> None:
        """Keep certificate and configuration as they should be, until cancelled."""
        crossed_count = 0
        while True:
            wait_s = AGAIN_S
            try:
                await self.look()
                self._problem, crossed_count, wait_s = "", 0, LOOK_S
            except ApiRefused as refused:
                crossed_count = crossed_count + 1 if refused.status in _CROSSED else 0
                if not 0 < crossed_count <= CROSSED_COUNT_MAX:
                    self._tell(str(refused))
            except Exception as error:  # noqa: BLE001  the certificate must be renewed all the same
                self._tell(f"a bug in costd: {error!r}")
            await asyncio.sleep(wait_s)

    async def look(self) -> None:
        """Look once at what is stored, and put right what is not as it should be.

        Errors: ApiRefused; with 409 or 422 somebody else changed it meanwhile.
        """
        made = await self._stored()
        if self._pair is None:
            # Probes come over TLS as well; the API server does not call before it is told.
            self._serve(made)
        configuration = await self._cluster.get(self._names.webhook_path)
        if configuration is None:
            raise ApiRefused(
                f"there is no MutatingWebhookConfiguration {self._names.webhook}; apply it, or "
                "name it by --webhook"
            )
        operations = filled(configuration, made.ca_pem)
        if operations:
            await self._cluster.patch(self._names.webhook_path, operations)
            self._log.info("webhook_filled", webhook=self._names.webhook)
        self._serve(made)
        self.is_ready = True

    async def _stored(self) -> Made:
        """Read the Secret, or make it; make what ends soon anew."""
        secret = await self._cluster.get(self._names.secret_path)
        made = read_made(secret) if secret is not None else None
        # By the clock of who checks the certificate: ours may be years off, and theirs is right.
        now_ns = self._cluster.wall_ns or self._wall_ns()
        # Where the Secret is lost, other replicas serve under the CA before for up to LOOK_S.
        before = made or self._made
        fresh = renewed(made, self._names.dns, now_ns, before=before.ca_pem if before else b"")
        if fresh is None:
            assert made is not None  # else it would have been made
            return made
        metadata = {"name": self._names.secret, "namespace": self._names.namespace}
        changed: dict[str, Any] = secret or {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": metadata | {"labels": {"app.kubernetes.io/name": "costd"}},
        }
        changed = changed | {"data": write_made(fresh)}
        if secret is None:
            await self._cluster.create(self._names.secrets_path, changed)
        else:
            await self._cluster.update(self._names.secret_path, changed)
        self._log.info(
            "certificate_made",
            secret=self._names.secret,
            new_ca=made is None or made.ca_pem != fresh.ca_pem,
            ends_s=fresh.ends_ns // NS_PER_S,
        )
        return fresh

    def _serve(self, made: Made) -> None:
        if self._made != made:
            self._made = made
            self._pair = Pair(made.certificate_pem, made.key_pem)

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            self._log.error("bootstrap_failed", problem=problem)
            self._problem = problem


def filled(configuration: Mapping[str, Any], ca_pem: bytes) -> list[Any]:
    """Write the patch that tells the API server of the CA; empty where it knows.

    Shape:   pure. The patch holds only for the configuration that was read.
    """
    bundle = base64.b64encode(ca_pem).decode()
    operations = []
    for position, webhook in enumerate(configuration.get("webhooks") or ()):
        if (webhook.get("clientConfig") or {}).get("caBundle") != bundle:
            path = f"/webhooks/{position}/clientConfig/caBundle"
            operations.append({"op": "add", "path": path, "value": bundle})
    if not operations:
        return []
    version = (configuration.get("metadata") or {}).get("resourceVersion")
    return [{"op": "test", "path": "/metadata/resourceVersion", "value": version}, *operations]
