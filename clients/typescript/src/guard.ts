/** One call around a function: admitted before it, closed after it by what is known then. */

import type { Client } from "./client.js";
import type { Admitted, Outcome, Settlement } from "./decision.js";
import { Denied, Unavailable } from "./errors.js";
import type { More, Waiting } from "./options.js";
import type { Extension } from "./pb/costd/v1/admission.js";
import { type Ask, buildClosing, type Used } from "./requests.js";
import type { Counts } from "./usage.js";

/** Usage so far is reported at most this often. */
const PROGRESS_MS_MIN = 1_000;

/** What is known of one call so far. */
export class Call {
  /** How the call was closed; undefined before, and where it was left to expire. */
  settlement: Settlement | undefined;
  private startedMs = performance.now();
  private used: Used | undefined;
  private isVoided = false;
  private isSent = false;
  private soFar: Counts | undefined;
  private reportedMs = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly client: Client,
    /** What costd decided. */
    readonly decision: Admitted,
  ) {}

  /** The model to call: the one asked for, or a cheaper one. */
  get model(): string {
    return this.decision.model;
  }

  get provider(): string {
    return this.decision.provider;
  }

  /** The most tokens to let the model write; undefined if nobody said. */
  get maxOutputTokens(): number | undefined {
    return this.decision.maxOutputTokens;
  }

  get maxRetries(): number | undefined {
    return this.decision.maxRetries;
  }

  /** Say that the request leaves now: from here on, failing is not free. */
  sent(): void {
    this.isSent = true;
    this.startedMs = performance.now();
  }

  /** Say what the call used; it is settled at the end. The last word counts. Errors: InvalidAsk. */
  settle(used: Used): void {
    buildClosing(used); // says at once what is wrong with it
    this.used = { durationMs: performance.now() - this.startedMs, ...used };
  }

  /** Say that the call was not made after all (answered from a cache, say). */
  void(): void {
    this.isVoided = true;
  }

  /** Remember the least that was used, for a call whose end nobody may know. */
  note(soFar: Counts): void {
    this.isSent = true;
    this.soFar = soFar;
  }

  /**
   * Report usage so far while streaming; heed `directives.stop` of the answer.
   *
   * Shape: asks at most once a second, else answers undefined. Of a call that was drawn from an
   * allowance it is only remembered; an unreachable daemon is no reason to stop.
   */
  async progress(soFar: Counts): Promise<Extension | undefined> {
    this.note(soFar);
    const nowMs = performance.now();
    if (this.decision.source !== "daemon" || nowMs - this.reportedMs < PROGRESS_MS_MIN)
      return undefined;
    this.reportedMs = nowMs;
    return this.reported(soFar);
  }

  /** Ask for a larger or longer hold; look at `extended` of the answer. */
  extend(more: More): Promise<Extension> {
    return this.client.extend(this.decision, more);
  }

  private async reported(usageSoFar: Counts): Promise<Extension | undefined> {
    try {
      return await this.client.extend(this.decision, { usageSoFar });
    } catch (error) {
      if (error instanceof Unavailable) return undefined; // the settlement will say it all
      throw error;
    }
  }

  /** Close by what is known; `error` is what the function threw. */
  async finish(failed: boolean, error: unknown): Promise<void> {
    const outcome = failed ? outcomeOf(error) : "ok";
    if (this.used !== undefined) {
      this.settlement = await this.client.settle(this.decision, { outcome, ...this.used });
    } else if (this.isVoided || (failed && !this.isSent && !mayHaveLeft(error))) {
      this.settlement = await this.client.void(this.decision);
    } else {
      const durationMs = performance.now() - this.startedMs;
      const isAtDaemon = this.decision.source === "daemon";
      if (this.soFar !== undefined && isAtDaemon) {
        await this.reported(this.soFar);
      }
      this.client.leave(this.decision, this.soFar, { outcome, durationMs });
    }
  }
}

/** See `Client.guard`. */
export async function guard<T>(
  client: Client,
  ask: Ask,
  run: (call: Call) => Promise<T>,
  waiting: Waiting,
): Promise<T> {
  const decision = await client.admit(ask, waiting);
  if (!decision.allowed) throw new Denied(decision);
  const call = new Call(client, decision);
  let result: T;
  try {
    result = await run(call);
  } catch (error) {
    // The function's own error is on its way; that of closing is not to hide it.
    await call.finish(true, error).catch((closing: unknown) => {
      console.error(`costd: closing ${decision.askId} failed: ${String(closing)}`);
    });
    throw error;
  }
  await call.finish(false, undefined);
  return result;
}

/** Tell whether an error looks like the provider had the request already. */
function mayHaveLeft(error: unknown): boolean {
  const { status, name } = errorFacts(error);
  return (typeof status === "number" && status >= 500) || name.includes("Timeout");
}

function outcomeOf(error: unknown): Outcome {
  const { name } = errorFacts(error);
  if (name.includes("Timeout")) return "timeout";
  return name.includes("Abort") ? "cancelled" : "error";
}

function errorFacts(error: unknown): { status: unknown; name: string } {
  if (typeof error !== "object" || error === null) return { status: undefined, name: "" };
  const { status, name } = error as { status?: unknown; name?: unknown };
  return { status, name: `${String(name ?? "")} ${error.constructor?.name ?? ""}` };
}
