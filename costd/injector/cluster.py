"""The few calls that are made to Kubernetes' API, as the pod's service account.

Plain HTTPS by Python's own client, in a thread: four calls a minute need no client library
(docs/adr/0017-admission-webhook.md).
"""

import asyncio
import http.client
import os
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from costd.model.time import NS_PER_S
from costd.trust import TlsFault

CALL_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
_JSON: Final = "application/json"
_OK: Final = range(200, 300)


class ApiRefused(Exception):
    """The API did not do what it was asked; carries the status, 0 if it could not be reached."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Cluster:
    """Kubernetes' API as one service account sees it."""

    def __init__(self, host: str, port: int, account: Path) -> None:
        self._host, self._port, self._account = host, port, account
        self.wall_ns: int | None = None
        """What time the API had when it answered last; None where it did not say."""

    @classmethod
    def of_pod(cls, account: Path) -> "Cluster":
        """Find the API as pods do.

        Errors: TlsFault where this is no pod, or one without a token.
        """
        host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port.isdigit():
            raise TlsFault(
                "bootstrap: KUBERNETES_SERVICE_HOST and _PORT are not set, so this is no pod; give "
                "tls_cert and tls_key instead"
            )
        if not (account / "token").exists():
            raise TlsFault(
                f"bootstrap: {account / 'token'} is not there; let the pod mount its service "
                "account's token (automountServiceAccountToken: true)"
            )
        return cls(host, int(port), account)

    async def get(self, path: str) -> dict[str, Any] | None:
        """Read an object; None where there is none.

        Errors: ApiRefused.
        """
        status, answer = await self._call("GET", path)
        if status == http.client.NOT_FOUND:
            return None
        return self._done("get", path, status, answer)

    async def create(self, path: str, made: Mapping[str, Any]) -> dict[str, Any]:
        """Add an object to a collection.

        Errors: ApiRefused, with 409 where it is there.
        """
        return self._done("create", path, *await self._call("POST", path, made))

    async def update(self, path: str, changed: Mapping[str, Any]) -> dict[str, Any]:
        """Write an object that nobody has changed since it was read.

        Errors: ApiRefused, with 409 where somebody has.
        """
        return self._done("update", path, *await self._call("PUT", path, changed))

    async def patch(self, path: str, operations: list[Any]) -> dict[str, Any]:
        """Change parts of an object.

        Errors: ApiRefused, with 409 or 422 where a test of the patch failed.
        """
        form = "application/json-patch+json"
        return self._done("patch", path, *await self._call("PATCH", path, operations, form))

    async def _call(
        self, method: str, path: str, body: Any = None, form: str = _JSON
    ) -> tuple[int, Any]:
        return await asyncio.to_thread(self._call_now, method, path, body, form)

    def _call_now(self, method: str, path: str, body: Any, form: str) -> tuple[int, Any]:
        """Make one call; token and CA are read anew, since the kubelet replaces them."""
        try:
            token = (self._account / "token").read_text().strip()
            context = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=CALL_S, context=context
            )
            try:
                headers = {"Authorization": f"Bearer {token}", "Accept": _JSON}
                if body is not None:
                    headers["Content-Type"] = form
                raw = None if body is None else msgspec.json.encode(body)
                connection.request(method, path, body=raw, headers=headers)
                response = connection.getresponse()
                read = response.read(ANSWER_BYTES_MAX)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise ApiRefused(
                f"the API at {self._host}:{self._port} cannot be asked: {error}"
            ) from error
        self.wall_ns = _read_date(response.headers.get("Date", ""))
        try:
            return response.status, msgspec.json.decode(read)
        except msgspec.MsgspecError:
            return response.status, {"message": read[:200].decode(errors="replace")}

    def _done(self, verb: str, path: str, status: int, answer: Any) -> dict[str, Any]:
        if status in _OK and isinstance(answer, dict):
            return answer
        said = answer.get("message") if isinstance(answer, dict) else None
        hint = ""
        if status == http.client.FORBIDDEN:
            hint = "; give the injector's service account the role that its manifests have"
        raise ApiRefused(f"{verb} {path}: {status} {said or 'no reason'}{hint}", status)


def _read_date(text: str) -> int | None:
    try:
        return int(parsedate_to_datetime(text).timestamp()) * NS_PER_S
    except ValueError:
        return None
