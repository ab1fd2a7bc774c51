/** What the client throws: a refusal, no decision at all, or a mistake in the request. */

import { status } from "@grpc/grpc-js";
import type { Refused } from "./decision.js";

/** Base of every error of this package; the LLM call must not be made. */
export class CostdError extends Error {
  /** The gRPC status that the daemon answered with; undefined where nothing was asked. */
  readonly code: status | undefined;

  constructor(message: string, options: { code?: status | undefined; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = options.code;
  }
}

/** The daemon decided that the call must not be made; `decision` says all it knows. */
export class Denied extends CostdError {
  readonly decision: Refused;

  constructor(decision: Refused) {
    super(describeDenial(decision));
    this.decision = decision;
  }
}

/** No decision could be had, and the fail mode does not let the call go without one. */
export class Unavailable extends CostdError {}

/** Too many calls wait to be recorded; another one could not be accounted for. */
export class OutboxFull extends Unavailable {}

/** A request breaks a rule of its fields; the message names the field. */
export class InvalidAsk extends CostdError {}

/** The caller did not say who it is. */
export class Unauthenticated extends CostdError {}

/** A caller may not claim that class or label. */
export class NotPermitted extends CostdError {}

/** No reservation has this id, or it was forgotten after its retention. */
export class ReservationNotFound extends CostdError {}

/** The id was used before with other fields; the message names the first that differs. */
export class IdReused extends CostdError {}

/** The reservation was closed in a way that forbids this. */
export class ReservationClosed extends CostdError {}

/** The daemon itself is too busy, also after retries. */
export class Overloaded extends CostdError {}

/** The daemon could not do its work: a damaged store, or a bug. */
export class DaemonFailed extends CostdError {}

const ERRORS_BY_STATUS: Partial<Record<status, typeof CostdError>> = {
  [status.INVALID_ARGUMENT]: InvalidAsk,
  [status.UNAUTHENTICATED]: Unauthenticated,
  [status.PERMISSION_DENIED]: NotPermitted,
  [status.NOT_FOUND]: ReservationNotFound,
  [status.ALREADY_EXISTS]: IdReused,
  [status.FAILED_PRECONDITION]: ReservationClosed,
  [status.RESOURCE_EXHAUSTED]: Overloaded,
  [status.UNAVAILABLE]: Unavailable,
  [status.DEADLINE_EXCEEDED]: Unavailable,
  [status.CANCELLED]: Unavailable,
};

/** A gRPC call ended without a reply; inside the client only. */
export class RpcFailed extends Error {
  readonly code: status;
  readonly details: string;
  /** Whether the request may have reached the daemon, at this try or an earlier one. */
  mayHaveArrived = true;

  constructor(code: status, details: string) {
    super(`${status[code]}: ${details}`);
    this.name = "RpcFailed";
    this.code = code;
    this.details = details;
  }
}

/** Name the error that a failed call stands for. */
export function errorOf(failure: RpcFailed): CostdError {
  const kind = ERRORS_BY_STATUS[failure.code] ?? DaemonFailed;
  return new kind(failure.details || status[failure.code], { code: failure.code, cause: failure });
}

/** Say in one line what was refused, by which rule, and what would pass. */
function describeDenial(decision: Refused): string {
  let text = `${decision.reason}: ${decision.message || "the call was refused"}`;
  const binding = decision.binding;
  if (binding !== undefined) {
    text += ` [${binding.kind} ${binding.rule}${binding.key ? ` ${binding.key}` : ""}]`;
  }
  const cheaper = decision.wouldPass.map((one) =>
    one.provider ? `${one.provider}/${one.model}` : one.model || one.tier,
  );
  if (cheaper.length > 0) text += `; would pass: ${cheaper.join(", ")}`;
  if (decision.upgradeText) text += `; ${decision.upgradeText} ${decision.upgradeUrl}`.trimEnd();
  return text;
}
