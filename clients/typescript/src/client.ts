/** The client: asking, retrying, failing open or closed, settling. */

import { defaultAddress } from "./address.js";
import { Attached } from "./attached.js";
import {
  AskedDecision,
  asDecision,
  type Decision,
  type DecisionView,
  Settlement,
  type Source,
} from "./decision.js";
import { Drawn } from "./drawn.js";
import { extendDrawn, leaveDrawn } from "./draws.js";
import { CostdError, errorOf, InvalidAsk, OutboxFull, RpcFailed, Unavailable } from "./errors.js";
import { FAIL_MODES, type FailMode, guessCostNusd, SafeAllowance } from "./fail-mode.js";
import { type Call, guard } from "./guard.js";
import { type ClientOptions, type More, programName, toConsole, type Waiting } from "./options.js";
import { type Delivery, type Entry, type Log, Outbox } from "./outbox.js";
import {
  type AdmitRequest,
  type Explanation,
  type ExtendRequest,
  Extension,
  ReservationState,
  Decision as WireDecision,
  Settlement as WireSettlement,
  Verdict as WireVerdict,
} from "./pb/costd/v1/admission.js";
import { Requester } from "./requester.js";
import {
  type Ask,
  buildAsk,
  buildClosing,
  buildRecord,
  buildSettle,
  type Closing,
  count,
  type Defaults,
  duration,
  howItWent,
  type Kind,
  money,
  type Used,
  unixNs,
} from "./requests.js";
import { RETRYABLE, UNREACHABLE } from "./retry.js";
import { Scope, Scopes } from "./scope.js";
import { Transport } from "./transport.js";
import { type Counts, readUsage } from "./usage.js";

const FLUSH_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 2_000;
const FULL_WAIT_MS = 10;
const SETTLEMENTS_COUNT_MAX = 100_000;

/** Asks costd; one for a program. Close it, so that what waits is delivered. */
export class Client {
  readonly address: string;
  readonly caller: string;
  readonly failMode: FailMode;
  readonly outbox: Outbox;
  private readonly defaults: Defaults;
  private readonly timeoutMs: number;
  private readonly guessNusd: bigint | undefined;
  private readonly safe: SafeAllowance;
  private readonly transport: Transport;
  private readonly requester: Requester;
  private readonly attached: Attached | undefined;
  private readonly scopes: Scopes | undefined;
  private readonly log: Log;
  private isClosed = false;

  /** Errors: TypeError, InvalidAsk for options that make no sense. */
  constructor(options: ClientOptions = {}) {
    this.address = options.address ?? defaultAddress();
    this.caller = options.caller ?? (process.env.COSTD_CALLER || programName());
    this.failMode = options.failMode ?? "closed";
    if (!FAIL_MODES.has(this.failMode)) {
      throw new TypeError(
        `failMode is ${this.failMode}; it must be one of ${[...FAIL_MODES].join(", ")}`,
      );
    }
    this.timeoutMs = options.timeoutMs ?? 2_000;
    if (!(this.timeoutMs > 0))
      throw new TypeError(`timeoutMs is ${this.timeoutMs}; it must be above 0`);
    this.guessNusd = money("priceGuessNusdPer1kTokens", options.priceGuessNusdPer1kTokens);
    this.safe = new SafeAllowance(money("safeAllowanceNusd", options.safeAllowanceNusd) ?? 0n);
    this.log = options.log ?? toConsole;
    const given = buildAsk(
      { labels: {}, taskClass: "" },
      { labels: options.labels, taskClass: options.taskClass },
    );
    this.defaults = { labels: given.labels, taskClass: given.taskClass };
    this.transport = new Transport(this.address, this.caller);
    this.requester = new Requester(this.transport, this.timeoutMs, this.failMode === "closed");
    const capacity = options.outboxCapacityCount ?? 10_000;
    this.outbox = new Outbox((entry) => this.deliver(entry), capacity, this.log);
    if (options.allowances ?? true) {
      this.attached = new Attached(() => this.transport.attach(), {
        sharesFiles: this.address.startsWith("unix:"),
        settlementsCountMax: SETTLEMENTS_COUNT_MAX,
        log: this.log,
      });
      this.scopes = new Scopes(this.defaults, this.attached);
    }
  }

  /** How many calls that ended the daemon has yet to hear of. */
  get unheardCount(): number {
    return (this.attached?.session.reports.settlementsCount ?? 0) + this.outbox.queuedCount;
  }

  /**
   * Ask whether a call may happen; the decision may be a refusal, so look at `allowed`.
   *
   * Shape: decided in the process where an allowance of its scope is at hand.
   * Errors: Unavailable if nobody decides and the fail mode refuses; InvalidAsk, NotPermitted,
   * IdReused, Overloaded otherwise; the signal's reason. After an error, do not call.
   */
  async admit(ask: Ask, { signal }: Waiting = {}): Promise<Decision> {
    const drawn = this.scopes?.draw(ask);
    return drawn !== undefined ? asDecision(drawn) : this.askDaemon(ask, signal);
  }

  /** Bind what calls of one kind share, once, for loops that admit many. Errors: InvalidAsk. */
  scope(kind: Kind): Scope {
    buildAsk(this.defaults, kind); // says at once what is wrong with it
    return new Scope(kind, this.scopes, (ask, signal) => this.askDaemon(ask, signal));
  }

  /**
   * Admit a call, run it, and close it by what is known at its end; see README.
   *
   * Errors: Denied if the call must not be made; whatever `run` throws.
   */
  guard<T>(ask: Ask, run: (call: Call) => Promise<T>, waiting: Waiting = {}): Promise<T> {
    return guard(this, ask, run, waiting);
  }

  /**
   * Close an admitted call at what it used; idempotent.
   *
   * Ensures: where the daemon cannot be reached, the request waits in the outbox.
   * Errors: ReservationNotFound, ReservationClosed; InvalidAsk for unreadable usage.
   */
  async settle(decision: DecisionView, used: Used, { signal }: Waiting = {}): Promise<Settlement> {
    const closing = buildClosing(used);
    if (decision instanceof Drawn) return this.endDrawn(decision, closing);
    if (!decision.decided) return this.queueRecord(decision.ask, closing);
    const id = heldId(decision);
    return this.closeAtDaemon({ id, method: "settle", request: buildSettle(id, closing) }, signal);
  }

  /** Close an admitted call at zero, because it never left; idempotent. */
  async void(decision: DecisionView, { signal }: Waiting = {}): Promise<Settlement> {
    if (decision instanceof Drawn) return this.endDrawn(decision, undefined);
    if (!decision.decided) {
      this.outbox.drop(decision.askId);
      this.safe.giveBack(decision.askId);
      const state = ReservationState.RESERVATION_STATE_VOIDED;
      return new Settlement(WireSettlement.fromPartial({ state }));
    }
    const id = heldId(decision);
    return this.closeAtDaemon({ id, method: "void", request: { reservationId: id } }, signal);
  }

  /**
   * Ask for a larger or longer hold, or report usage so far; look at `extended` and
   * `directives.stop` of the answer. A call that nobody decided on holds nothing and may go on.
   */
  async extend(decision: DecisionView, more: More, { signal }: Waiting = {}): Promise<Extension> {
    if (!decision.decided) return Extension.fromPartial({ extended: true });
    const amountNusd = money("additionalCostNusd", more.additionalCostNusd) ?? 0n;
    const tokensCount = count("additionalOutputTokens", more.additionalOutputTokens) ?? 0n;
    const request: ExtendRequest = {
      reservationId: decision.reservationId,
      additionalCostNusd: amountNusd,
      additionalOutputTokens: tokensCount,
      ttl: more.ttlMs === undefined ? undefined : duration("ttlMs", more.ttlMs),
      usageSoFar: more.usageSoFar === undefined ? undefined : readUsage(undefined, more.usageSoFar),
    };
    if (decision instanceof Drawn) {
      this.attached?.checkHome(decision);
      return extendDrawn(decision, Number(amountNusd), Number(tokensCount));
    }
    heldId(decision);
    return this.requester.orThrow("extend", request, signal);
  }

  /** Charge a call that nobody asked for (a batch job, a backfill); idempotent by `recordId`. */
  async record(
    call: Used & { recordId?: string; ask?: Ask; happenedNs?: bigint },
    { signal }: Waiting = {},
  ): Promise<Settlement> {
    const { recordId, ask, happenedNs, ...used } = call;
    if (ask?.askId) throw new InvalidAsk("a record's id is recordId; leave askId out");
    const request = buildAsk(this.defaults, { ...ask, askId: recordId });
    const record = buildRecord(request, buildClosing(used), happenedNs ?? unixNs());
    return this.closeAtDaemon({ id: request.askId, method: "record", request: record }, signal);
  }

  /** Ask what `admit` would answer and why, consuming nothing. */
  async explain(ask: Ask, { signal }: Waiting = {}): Promise<Explanation> {
    return this.requester.orThrow("explain", buildAsk(this.defaults, ask), signal);
  }

  /**
   * Leave a call open whose end nobody knows: the daemon charges its hold when that expires, or
   * what is known to be used if that is more.
   */
  leave(decision: DecisionView, soFar: Counts | undefined, went: Used): void {
    const known: Closing = {
      ...howItWent(went),
      usage: soFar === undefined ? undefined : readUsage(undefined, soFar),
    };
    if (!decision.decided) this.queueRecord(decision.ask, known);
    else if (decision instanceof Drawn && this.attached !== undefined) {
      leaveDrawn(decision, known, this.attached);
    }
  }

  /** Wait until all that was said so far is in the daemon's books; false if not in time. */
  async flush(timeoutMs: number = FLUSH_TIMEOUT_MS): Promise<boolean> {
    const heard = await Promise.all([
      this.attached?.flush(timeoutMs),
      this.outbox.flush(timeoutMs),
    ]);
    return heard.every((one) => one !== false);
  }

  /** Deliver what waits, for at most so long, and disconnect. */
  async close(timeoutMs: number = CLOSE_TIMEOUT_MS): Promise<void> {
    this.isClosed = true;
    await Promise.all([this.attached?.close(timeoutMs), this.outbox.close(timeoutMs)]);
    this.transport.close();
  }

  // ---- inside

  private async askDaemon(ask: Ask, signal: AbortSignal | undefined): Promise<Decision> {
    if (this.isClosed) throw new CostdError("this client was closed; make another");
    const request = buildAsk(this.defaults, ask);
    let wire: WireDecision;
    try {
      wire = await this.requester.send("admit", request, signal);
    } catch (error) {
      if (!(error instanceof RpcFailed)) {
        this.abandon(request); // given up by the caller; the ask may have arrived
        throw error;
      }
      if (!UNREACHABLE.has(error.code)) throw errorOf(error);
      return this.undecided(request, error);
    }
    this.safe.refill();
    this.outbox.wake();
    this.attached?.wake();
    return asDecision(new AskedDecision(wire, request, "daemon"));
  }

  /** Apply the fail mode to an ask that nobody answered. */
  private undecided(ask: AdmitRequest, failure: RpcFailed): Decision {
    let source: Source;
    try {
      source = this.letGo(ask, failure);
    } catch (error) {
      if (failure.mayHaveArrived) this.abandon(ask);
      throw error;
    }
    const wire = WireDecision.fromPartial({
      verdict: WireVerdict.VERDICT_ALLOW,
      askId: ask.askId,
      provider: ask.provider,
      model: ask.model,
      tier: ask.tier,
      message: `the daemon could not be reached; fail mode ${this.failMode}`,
    });
    return asDecision(new AskedDecision(wire, ask, source));
  }

  private letGo(ask: AdmitRequest, failure: RpcFailed): Source {
    const options = { code: failure.code, cause: failure };
    const why = `costd cannot be reached (${failure.message})`;
    if (this.failMode === "closed") {
      throw new Unavailable(`${why} and the fail mode is closed`, options);
    }
    if (this.failMode === "safe") {
      const cost = guessCostNusd(ask, this.guessNusd);
      if (cost === undefined) {
        const help = "state estimatedCostNusd, or give the client priceGuessNusdPer1kTokens";
        throw new Unavailable(`${why} and the ask's cost is unknown; ${help}`, options);
      }
      if (!this.safe.draw(ask.askId, cost)) {
        const left = `this call takes ${cost} nusd and ${this.safe.leftNusd} of the safe allowance are left`;
        throw new Unavailable(`${why}; ${left}`, options);
      }
    }
    const request = buildRecord(ask, howItWent({}), unixNs());
    if (!this.outbox.hold({ id: ask.askId, method: "record", request })) {
      this.safe.giveBack(ask.askId);
      const help =
        "so this call could not be recorded later; make outboxCapacityCount larger or wait";
      throw new OutboxFull(`${why} and the outbox is full, ${help}`, options);
    }
    return this.failMode === "open" ? "fail_open" : "fail_safe";
  }

  /** Have the hold of an ask that may have arrived, and whose call is not made, released. */
  private abandon(ask: AdmitRequest): void {
    this.outbox.put({ id: ask.askId, method: "abandon", request: ask }, { droppable: true });
  }

  private async endDrawn(drawn: Drawn, closing: Closing | undefined): Promise<Settlement> {
    const attached = this.attached;
    if (attached === undefined) throw new CostdError("only a client with allowances draws");
    const untilMs = performance.now() + this.timeoutMs;
    while (attached.isFull && drawn.end === undefined) {
      if (performance.now() >= untilMs) {
        throw new OutboxFull(
          `${drawn.askId} could not be settled: the daemon has yet to hear of too many calls; ` +
            "settle it again later, or it is charged at its hold",
        );
      }
      await new Promise((resolve) => setTimeout(resolve, FULL_WAIT_MS));
    }
    attached.end(drawn, { closing, settledMs: Date.now() });
    return new Settlement(WireSettlement.fromPartial({ holdNusd: drawn.holdNusd }), true);
  }

  private queueRecord(ask: AdmitRequest, closing: Closing): Settlement {
    const happenedNs = unixNs(Date.now() - closing.durationMs);
    const request = buildRecord(ask, closing, happenedNs);
    return this.queue({ id: ask.askId, method: "record", request });
  }

  private queue(entry: Entry): Settlement {
    if (!this.outbox.put(entry)) {
      throw new OutboxFull(
        `${entry.method} ${entry.id} could not be queued: the outbox is full or closed`,
      );
    }
    return new Settlement(WireSettlement.fromPartial({}), true);
  }

  private async closeAtDaemon(
    entry: Exclude<Entry, { method: "abandon" }>,
    signal: AbortSignal | undefined,
  ): Promise<Settlement> {
    try {
      return new Settlement(await this.requester.send(entry.method, entry.request, signal));
    } catch (error) {
      if (!(error instanceof RpcFailed)) {
        this.outbox.put(entry); // given up part of the way; safe to send twice
        throw error;
      }
      if (!RETRYABLE.has(error.code)) throw errorOf(error);
      return this.queue(entry);
    }
  }

  /** Deliver one outbox entry; never throws. */
  private async deliver(entry: Entry): Promise<Delivery> {
    const { transport, timeoutMs } = this;
    try {
      if (entry.method === "abandon") {
        const { reservationId } = await transport.send("admit", entry.request, timeoutMs);
        if (reservationId) await transport.send("void", { reservationId }, timeoutMs);
      } else {
        await transport.send(entry.method, entry.request, timeoutMs);
      }
    } catch (error) {
      const failure = error instanceof RpcFailed ? error : undefined;
      if (failure !== undefined && RETRYABLE.has(failure.code)) return "unreachable";
      const isAbandon = entry.method === "abandon";
      this.log(
        isAbandon ? "info" : "error",
        `${entry.method} ${entry.id} failed: ${String(error)}`,
      );
      // A failure of the daemon may pass; a refused request stays refused.
      const passes = failure !== undefined && errorOf(failure).name === "DaemonFailed";
      return passes && !isAbandon ? "failed" : "rejected";
    }
    this.requester.answered();
    return "done";
  }
}

function heldId(decision: DecisionView): string {
  if (!decision.reservationId) {
    throw new CostdError(
      `ask ${decision.askId} holds no money (verdict ${decision.verdict}); ` +
        "only admitted calls are settled, voided or extended",
    );
  }
  return decision.reservationId;
}
