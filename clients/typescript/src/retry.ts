/** When to try again, and when to give up. */

import { status } from "@grpc/grpc-js";
import type { RpcFailed } from "./errors.js";

const BACKOFF_MS_FIRST = 20;
const BACKOFF_MS_MAX = 500;

/** No decision could be had; the only statuses that a fail mode applies to. */
export const UNREACHABLE: ReadonlySet<status> = new Set([
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  // Said by a daemon that stops with the request in its hands; a caller that cancels by itself
  // gets the reason of its AbortSignal, not this.
  status.CANCELLED,
]);

/** Asking again may help; every request is safe to repeat by its id. */
export const RETRYABLE: ReadonlySet<status> = new Set([
  ...UNREACHABLE,
  status.RESOURCE_EXHAUSTED,
  status.ABORTED,
]);

const NEVER_LEFT = ["no connection established", "name resolution", "econnrefused", "enoent"];

/** Double from 20 ms to 500 ms, then take a share of it between a half and all. */
export function backoffMs(attempt: number, jitter: number): number {
  return Math.min(BACKOFF_MS_FIRST * 2 ** (attempt - 1), BACKOFF_MS_MAX) * (0.5 + jitter / 2);
}

/** Tell whether a request that failed so may have reached the daemon after all. */
export function mayHaveArrived(failure: RpcFailed): boolean {
  if (failure.code === status.DEADLINE_EXCEEDED || failure.code === status.CANCELLED) return true;
  const said = failure.details.toLowerCase();
  return failure.code === status.UNAVAILABLE && !NEVER_LEFT.some((text) => said.includes(text));
}
