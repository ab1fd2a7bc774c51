/** What the daemon answers, as views of the wire's messages. */

import {
  type AdmitRequest,
  type Binding,
  type Directives,
  ReservationState,
  type Decision as WireDecision,
  Outcome as WireOutcome,
  Reason as WireReason,
  type Settlement as WireSettlement,
  Verdict as WireVerdict,
  type WouldPass,
} from "./pb/costd/v1/admission.js";

/** The answer in one word. */
export type Verdict = "allow" | "degrade" | "deny";

/** Where a decision was made; the last two stand for calls that nobody decided on. */
export type Source = "daemon" | "allowance" | "fail_open" | "fail_safe";

/** Why; `UNKNOWN` stands for a reason of a newer daemon, and for calls that nobody decided on. */
export type Reason =
  | "UNKNOWN"
  | (keyof typeof WireReason extends infer Name
      ? Name extends `REASON_${infer Short}`
        ? Exclude<Short, "UNSPECIFIED">
        : never
      : never);

/** How a call ended. */
export type Outcome = "ok" | "error" | "cancelled" | "timeout";

export const OUTCOMES: Record<Outcome, WireOutcome> = {
  ok: WireOutcome.OUTCOME_OK,
  error: WireOutcome.OUTCOME_ERROR,
  cancelled: WireOutcome.OUTCOME_CANCELLED,
  timeout: WireOutcome.OUTCOME_TIMEOUT,
};

/** How a call's money stands. */
export type State = "held" | "settled" | "voided" | "expired" | "unknown";

/** The call may be made as asked. */
export type Allowed = DecisionView & { readonly verdict: "allow"; readonly allowed: true };

/** The call may be made with this tier, model and these directives. */
export type Degraded = DecisionView & { readonly verdict: "degrade"; readonly allowed: true };

/** The call must not be made. */
export type Refused = DecisionView & { readonly verdict: "deny"; readonly allowed: false };

export type Admitted = Allowed | Degraded;

/** Look at `allowed`, or at `verdict`; a refusal is an answer. */
export type Decision = Admitted | Refused;

/**
 * Verdict, one reason, and all that belongs to it.
 *
 * Shape: immutable. Decisions made in the process (`drawn.ts`) share one message and make the rest
 * of theirs when somebody looks at it.
 */
export abstract class DecisionView {
  /** The message, but for what may differ between decisions that share one. */
  protected abstract get shared(): WireDecision;
  /** What was asked. */
  abstract get ask(): AdmitRequest;
  abstract get askId(): string;
  abstract get source(): Source;
  /** What is held until the call is settled. */
  abstract get holdNusd(): bigint;
  /** When the hold expires, in Unix time; 0 where nothing is held. */
  abstract get expiresNs(): bigint;

  get verdict(): Verdict {
    return VERDICTS[this.shared.verdict] ?? "deny";
  }

  /** Whether the call may be made, as asked or degraded. */
  get allowed(): boolean {
    return this.verdict !== "deny";
  }

  /** Whether costd decided; false for calls that a fail mode let go. */
  get decided(): boolean {
    return this.source === "daemon" || this.source === "allowance";
  }

  get reason(): Reason {
    return reasonName(this.shared.reason);
  }

  /** One sentence for people. */
  get message(): string {
    return this.shared.message;
  }

  /** Under what the money is held; empty if none is held at the daemon. */
  get reservationId(): string {
    return this.shared.reservationId;
  }

  /** Whose model to call. */
  get provider(): string {
    return this.shared.provider || this.ask.provider;
  }

  /** Which model to call. */
  get model(): string {
    return this.shared.model || this.ask.model;
  }

  get tier(): string {
    return this.shared.tier;
  }

  /** What to do cheaper. */
  get directives(): Directives {
    return this.shared.directives ?? NO_DIRECTIVES;
  }

  /** Write at most this many tokens: what was asked for, or less; undefined if nobody said. */
  get maxOutputTokens(): number | undefined {
    const said = [this.ask.maxOutputTokens, this.shared.directives?.maxOutputTokens]
      .filter((count) => count !== undefined)
      .map(Number);
    return said.length > 0 ? Math.min(...said) : undefined;
  }

  /** Retry at most this often; undefined if nothing was said. */
  get maxRetries(): number | undefined {
    return this.shared.directives?.maxRetries;
  }

  /** The rule that refused or degraded. */
  get binding(): Binding | undefined {
    return this.shared.binding;
  }

  /** What would be admitted now. */
  get wouldPass(): readonly WouldPass[] {
    return this.shared.wouldPass;
  }

  get upgradeText(): string {
    return this.shared.upgradeText;
  }

  get upgradeUrl(): string {
    return this.shared.upgradeUrl;
  }

  /** How full the tightest budget is, in basis points. */
  get utilisationBp(): number {
    return Number(this.shared.utilisationBp);
  }

  get policyRevision(): string {
    return this.shared.policyRevision;
  }

  /** Whether the same ask was answered before. */
  get replayed(): boolean {
    return this.shared.replayed;
  }
}

/** A decision that the daemon was asked for, or that a fail mode made. */
export class AskedDecision extends DecisionView {
  constructor(
    readonly wire: WireDecision,
    readonly ask: AdmitRequest,
    readonly source: Source,
  ) {
    super();
  }

  protected get shared(): WireDecision {
    return this.wire;
  }

  get askId(): string {
    return this.ask.askId;
  }

  get holdNusd(): bigint {
    return this.wire.holdNusd;
  }

  get expiresNs(): bigint {
    return this.wire.expiresNs;
  }
}

/** Hand out a view as the union that callers see: `allowed` and `verdict` go together. */
export function asDecision(view: DecisionView): Decision {
  return view as Decision;
}

/** How a call's money was closed; `queued` if the daemon has yet to hear of it. */
export class Settlement {
  constructor(
    readonly wire: WireSettlement,
    readonly queued = false,
  ) {}

  get state(): State {
    return this.queued ? "unknown" : (STATES[this.wire.state] ?? "unknown");
  }

  /** What was charged; undefined while queued. */
  get costNusd(): bigint | undefined {
    return this.queued ? undefined : this.wire.costNusd;
  }

  get holdNusd(): bigint {
    return this.wire.holdNusd;
  }

  /** How much the cost exceeded the hold. */
  get overrunNusd(): bigint {
    return this.wire.overrunNusd;
  }

  get replayed(): boolean {
    return this.wire.replayed;
  }

  get late(): boolean {
    return this.wire.late;
  }
}

/** Name a reason by its number on the wire. */
export function reasonName(reason: WireReason): Reason {
  const name = WireReason[reason];
  if (name === undefined || reason <= 0) return "UNKNOWN";
  return name.slice("REASON_".length) as Reason;
}

const VERDICTS: Partial<Record<WireVerdict, Verdict>> = {
  [WireVerdict.VERDICT_ALLOW]: "allow",
  [WireVerdict.VERDICT_DEGRADE]: "degrade",
  [WireVerdict.VERDICT_DENY]: "deny",
};

const STATES: Partial<Record<ReservationState, State>> = {
  [ReservationState.RESERVATION_STATE_HELD]: "held",
  [ReservationState.RESERVATION_STATE_SETTLED]: "settled",
  [ReservationState.RESERVATION_STATE_VOIDED]: "voided",
  [ReservationState.RESERVATION_STATE_EXPIRED]: "expired",
};

const NO_DIRECTIVES: Directives = Object.freeze({
  maxOutputTokens: undefined,
  maxRetries: undefined,
  compression: false,
  cache: false,
  batch: false,
  stop: false,
});
