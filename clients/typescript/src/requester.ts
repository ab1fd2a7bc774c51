/** Sends a request until it is answered, its time is up, or trying again cannot help. */

import { setTimeout as sleep } from "node:timers/promises";
import { errorOf, RpcFailed } from "./errors.js";
import { backoffMs, mayHaveArrived, RETRYABLE, UNREACHABLE } from "./retry.js";
import type { Method, Methods, Transport } from "./transport.js";

/** For so long after a patient request failed, a client that need not wait tries once only. */
const IMPATIENT_MS = 5_000;
/** How much of the time limit such a try may take, should the daemon hang. */
const IMPATIENT_TIMEOUT_SHARE = 0.25;

export class Requester {
  private impatientUntilMs = Number.NEGATIVE_INFINITY;

  /** `waits`: a client that fails closed has nothing better to do than to wait an outage out. */
  constructor(
    private readonly transport: Transport,
    private readonly timeoutMs: number,
    private readonly waits: boolean,
  ) {}

  /** The daemon answers again. */
  answered(): void {
    this.impatientUntilMs = Number.NEGATIVE_INFINITY;
  }

  /** Errors: RpcFailed; the signal's reason. */
  async send<M extends Method>(
    method: M,
    request: Methods[M][0],
    signal: AbortSignal | undefined,
  ): Promise<Methods[M][1]> {
    signal?.throwIfAborted();
    const beganMs = performance.now();
    const isPatient = this.waits || beganMs >= this.impatientUntilMs;
    const untilMs = beganMs + this.timeoutMs * (isPatient ? 1 : IMPATIENT_TIMEOUT_SHARE);
    let arrived = false;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const leftMs = untilMs - performance.now();
        const reply = await this.transport.send(method, request, leftMs, signal);
        this.answered();
        return reply;
      } catch (error) {
        if (!(error instanceof RpcFailed)) throw error;
        arrived ||= mayHaveArrived(error);
        error.mayHaveArrived = arrived;
        const waitMs = backoffMs(attempt, Math.random());
        const isOver = !isPatient || performance.now() + waitMs >= untilMs;
        if (!RETRYABLE.has(error.code) || isOver) {
          if (isPatient && UNREACHABLE.has(error.code)) {
            this.impatientUntilMs = performance.now() + IMPATIENT_MS;
          }
          throw error;
        }
        await sleep(waitMs, undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
      }
    }
  }

  /** Errors: CostdError; the signal's reason. */
  async orThrow<M extends Method>(
    method: M,
    request: Methods[M][0],
    signal: AbortSignal | undefined,
  ): Promise<Methods[M][1]> {
    try {
      return await this.send(method, request, signal);
    } catch (error) {
      throw error instanceof RpcFailed ? errorOf(error) : error;
    }
  }
}
