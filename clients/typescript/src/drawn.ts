/** Decisions made in the process, and how their calls are closed. */

import type { Allowance } from "./allowance.js";
import { DecisionView, type Source } from "./decision.js";
import { type Facts, withAmounts } from "./facts.js";
import {
  type AdmitRequest,
  DrawSettlement,
  type Decision as WireDecision,
} from "./pb/costd/v1/admission.js";
import { type Closing, closingFields, unixNs } from "./requests.js";

/** How a drawn call ended: by what is known of it, or undefined if it never left. */
export interface End {
  readonly closing: Closing | undefined;
  readonly settledMs: number;
}

/**
 * One call admitted from an allowance.
 *
 * Shape: its id and its ask are written when somebody looks at them. The hold grows with
 * extensions, `end` is set once.
 */
export class Drawn extends DecisionView {
  end: End | undefined = undefined;

  constructor(
    readonly allowance: Allowance,
    readonly facts: Facts,
    private readonly number: number,
    private hold: number,
    private tokens: number,
    private readonly prompt: number | undefined,
    private readonly output: number | undefined,
    private readonly cost: bigint | undefined,
    private readonly drawnMs: number,
  ) {
    super();
  }

  protected get shared(): WireDecision {
    return this.allowance.decision;
  }

  get source(): Source {
    return "allowance";
  }

  /** An id that no other ask has: the session, the allowance and the draw in it. */
  get askId(): string {
    return `${this.allowance.prefix}${this.number.toString(16)}`;
  }

  /** What was asked, as it would have been sent. */
  get ask(): AdmitRequest {
    return withAmounts({ ...this.facts.typical, askId: this.askId }, this.stated);
  }

  get holdNusd(): bigint {
    return BigInt(this.hold);
  }

  /** When the daemon charges the hold, unless the call was closed before. */
  get expiresNs(): bigint {
    return unixNs(this.drawnMs + this.allowance.callTtlMs);
  }

  /** What the call drew, in tokens. */
  get tokensCount(): number {
    return this.tokens;
  }

  get promptTokens(): number | undefined {
    return this.prompt;
  }

  private get stated() {
    return {
      promptTokens: this.prompt,
      maxOutputTokens: this.output,
      estimatedCostNusd: this.cost,
    };
  }

  /** Take more; for the allowance, which has made room for it. */
  enlarge(moreNusd: number, moreTokens: number): void {
    this.hold += moreNusd;
    this.tokens += moreTokens;
  }

  /** Write how the call ended; without a closing it never left. */
  settlement(end: End, labelsIndex: number): DrawSettlement {
    const fields = {
      allowanceId: this.allowance.id,
      askId: this.askId,
      holdNusd: this.holdNusd,
      tokensCount: BigInt(this.tokens),
      labelsIndex,
    };
    if (end.closing === undefined) return DrawSettlement.fromPartial({ ...fields, voided: true });
    return {
      ...fields,
      ...closingFields(end.closing),
      voided: false,
      costKind: this.facts.typical.costKind,
      promptTokens: this.prompt === undefined ? undefined : BigInt(this.prompt),
      maxOutputTokens: this.output === undefined ? undefined : BigInt(this.output),
      settledNs: unixNs(end.settledMs),
    };
  }
}

/** Tell whether two ends of one call say the same about what it cost. */
export function sameEnd(one: End, other: End): boolean {
  return cost(one) === cost(other);
}

function cost({ closing }: End): string {
  if (closing === undefined) return "voided";
  const { usage, costNusd, provider, model } = closing;
  return JSON.stringify([usage, costNusd, provider, model], (_, value) =>
    typeof value === "bigint" ? `${value}n` : value,
  );
}
