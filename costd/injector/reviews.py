"""The webhook as a web application: what it answers, how much it takes, how long."""

from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from costd.clock import ticks_ns
from costd.injector.bodies import Bodies, TurnedAway
from costd.injector.patch import Rules
from costd.injector.review import NotReviewed, Reviewed, review
from costd.telemetry.histogram import Durations
from costd.telemetry.logs import Log

SHARE: Final = 0.8
"""Of what the API server waits; the rest is the way back."""


class Reviews:
    """Answers the API server, and counts what it answered."""

    def __init__(
        self,
        rules: Rules,
        log: Log,
        *,
        is_ready: Callable[[], bool],
        body_bytes_max: int,
        deadline_s: float,
    ) -> None:
        self._rules, self._log, self._is_ready = rules, log, is_ready
        self._bodies, self._deadline_s = Bodies(body_bytes_max), deadline_s
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Reviews answered, by whether the pod was let in, and by reason."""
        self.turned_away: Counter[str] = Counter()
        """Requests that are no reviews, by reason."""
        self.durations = Durations()

    def app(self) -> Starlette:
        """Make the application."""
        return Starlette(
            routes=[
                Route("/inject", self._inject, methods=["POST"]),
                Route("/inject/asked", self._inject_asked, methods=["POST"]),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
            ]
        )

    async def _inject(self, request: Request) -> Response:
        return await self._answer(request, only_asked=False)

    async def _inject_asked(self, request: Request) -> Response:
        return await self._answer(request, only_asked=True)

    async def _healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _request: Request) -> Response:
        if self._is_ready():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("no certificate yet, or stopping\n", status_code=503)

    async def _answer(self, request: Request, *, only_asked: bool) -> Response:
        started_ns = ticks_ns()
        try:
            body = await self._body(request)
            done = review(body, self._rules, only_asked=only_asked)
        except NotReviewed as why:
            return self._turn_away(TurnedAway(400, "BadRequest", str(why)))
        except TurnedAway as why:
            return self._turn_away(why)
        except ClientDisconnect:
            return self._turn_away(TurnedAway(400, "Disconnected", "the caller went away"))
        self.durations.observe(ticks_ns() - started_ns)
        self._tell(done)
        return Response(done.body, media_type="application/json")

    async def _body(self, request: Request) -> bytes:
        """Read the body, as long as it may be, for as long as the API server waits.

        Errors: TurnedAway.
        """
        form = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if form != "application/json":
            raise TurnedAway(
                415,
                "UnsupportedMediaType",
                f"content-type is {form[:80] or 'missing'}; send application/json",
            )
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._bodies.bytes_max:
            raise self._bodies.too_large()
        address = request.client.host if request.client else ""
        wait_s = self._wait_s(request.query_params.get("timeout", ""))
        return await self._bodies.read(request.stream(), address, wait_s)

    def _wait_s(self, given: str) -> float:
        """Heed the query parameter by which the API server says how long it waits, as in 10s."""
        number = given.removesuffix("s")
        try:
            given_s = float(number) if given.endswith("s") and not given.endswith("ms") else 0.0
        except ValueError:
            given_s = 0.0
        return min(self._deadline_s, given_s * SHARE) if given_s > 0 else self._deadline_s

    def crowd_out(self) -> None:
        """Count a connection that had to make room."""
        self.turned_away["TooManyConnections"] += 1

    def _turn_away(self, why: TurnedAway) -> Response:
        """Answer in the form that the API server reads errors in."""
        self.turned_away[why.reason] += 1
        self._log.warning("review_refused", reason=why.reason, problem=str(why))
        status = {
            "apiVersion": "v1",
            "kind": "Status",
            "status": "Failure",
            "code": why.code,
            "reason": why.reason,
            "message": f"costd: {why}",
        }
        headers = {"connection": "close"}
        if why.code == HTTPStatus.TOO_MANY_REQUESTS:
            # Without it an API server does not try again.
            headers["retry-after"] = "1"
        return JSONResponse(status, status_code=why.code, headers=headers)

    def _tell(self, done: Reviewed) -> None:
        outcome = done.outcome
        verdict = "allowed" if outcome.is_let_in else "denied"
        self.outcomes[verdict, outcome.reason.value] += 1
        said = {"namespace": done.namespace, "name": done.name, "reason": outcome.reason.value}
        if outcome.is_let_in:
            self._log.info("pod_reviewed", **said, warnings=list(outcome.warnings))
        else:
            self._log.warning("pod_denied", **said, problem=outcome.message)

    def readings(self) -> list[tuple[int, dict[str, str]]]:
        """Copy the outcomes for whoever reads metrics."""
        return [
            (count, {"verdict": verdict, "reason": reason})
            for (verdict, reason), count in list(self.outcomes.items())
        ]
