/** What a client does when no decision can be had. */

import type { AdmitRequest } from "./pb/costd/v1/admission.js";

/** Refuse, let every call go and record it later, or let a small fixed amount go. */
export type FailMode = "closed" | "open" | "safe";

export const FAIL_MODES: ReadonlySet<string> = new Set(["closed", "open", "safe"]);

/**
 * Guess what an ask costs, without prices: its own estimate, else so much per 1,000 tokens.
 *
 * Ensures: rounds up; undefined where nothing is known, so that unknown is never free.
 */
export function guessCostNusd(
  ask: AdmitRequest,
  guessNusdPer1kTokens: bigint | undefined,
): bigint | undefined {
  if (ask.estimatedCostNusd !== undefined) return ask.estimatedCostNusd;
  if (guessNusdPer1kTokens === undefined || ask.promptTokens === undefined) return undefined;
  if (ask.maxOutputTokens === undefined && ask.costKind !== "embedding") return undefined;
  const tokens = ask.promptTokens + (ask.maxOutputTokens ?? 0n);
  return (tokens * guessNusdPer1kTokens + 999n) / 1_000n;
}

/** A fixed amount that may be spent undecided until the daemon answers again. */
export class SafeAllowance {
  private readonly spentNusd = new Map<string, bigint>();
  private totalNusd = 0n;

  constructor(readonly amountNusd: bigint) {}

  get leftNusd(): bigint {
    return this.amountNusd - this.totalNusd;
  }

  /** Take the cost of one call; false, taking nothing, if less is left. */
  draw(askId: string, costNusd: bigint): boolean {
    const already = this.spentNusd.get(askId) ?? 0n;
    if (this.totalNusd - already + costNusd > this.amountNusd) return false;
    this.totalNusd += costNusd - already;
    this.spentNusd.set(askId, costNusd);
    return true;
  }

  /** Return what a call drew that was never made. */
  giveBack(askId: string): void {
    this.totalNusd -= this.spentNusd.get(askId) ?? 0n;
    this.spentNusd.delete(askId);
  }

  /** Start anew, because the daemon answers again. */
  refill(): void {
    this.spentNusd.clear();
    this.totalNusd = 0n;
  }
}
