/** The hot path: a call is admitted in the process, from money that the daemon set aside. */

import { Drawn, type End, sameEnd } from "./drawn.js";
import type { Facts } from "./facts.js";
import { halves, type Pages } from "./pages.js";
import type { Allowance as Granted, Decision as WireDecision } from "./pb/costd/v1/admission.js";
import { PriceLine, UNPRICED } from "./price.js";
import { type Amounts, COUNT_MAX, milliseconds } from "./requests.js";

const NOTHING_MAX = -1;
const NONE = -1;

/** How far an allowance was drawn: words 1 to 3 of its slot in the client's page. */
export interface Sums {
  readonly callsCount: number;
  readonly amountNusd: number;
  readonly tokensCount: number;
}

/** Where every draw of a session looks whether anything changed since it last heard. */
export class Gate {
  /** The daemon's page; undefined without pages, where only the stream tells. */
  pages: Pages | undefined;
  private isShut = true;
  private low = 0;
  private high = 0;

  /** Let draws pass while the generation is this one, the last that was heard. */
  open(generation: bigint): void {
    [this.low, this.high] = halves(generation);
    this.isShut = false;
  }

  shut(): void {
    this.isShut = true;
  }

  /** Whether the generation is still the one last heard. */
  passes(): boolean {
    if (this.isShut) return false;
    return this.pages === undefined || this.pages.isGeneration(this.low, this.high);
  }
}

/** What an allowance needs to know of the session that got it. */
export interface Home {
  readonly gate: Gate;
  now(): number;
}

/**
 * Money, calls and tokens for one scope.
 *
 * Shape: the bounds are at first half of what was granted, and about half the lifetime: the draw
 * that passes one fails, and the session `stretch`es the allowance to all of it and asks for the
 * next. So asking ahead of need costs the other draws nothing.
 * Units: amounts are whole nano-USD below 2^53 ($9,007,199); of what was granted beyond that,
 * nothing is drawn.
 * Ensures: sums only rise, never pass what was granted, and stand in the page before the draw is
 * answered.
 */
export class Allowance {
  readonly id: string;
  readonly decision: WireDecision;
  readonly granted: Sums;
  readonly slot: number;
  readonly price: PriceLine;
  readonly endsMs: number;
  readonly callTtlMs: number;
  callsCount = 0;
  amountNusd = 0;
  tokensCount = 0;
  /** What the last report said. */
  reported: Sums = { callsCount: 0, amountNusd: 0, tokensCount: 0 };
  isClosed = false;
  isLow = false;
  private readonly countsTokens: boolean;
  private readonly contextWindow: number;
  private readonly outputTokensMax: number;
  private readonly outputTokensDefault: number;
  private readonly serialLow: number;
  private readonly serialHigh: number;
  private pages: Pages | undefined;
  private untilMs: number;
  private callsMost: number;
  private amountMost: number;
  private tokensMost: number;

  constructor(
    granted: Granted,
    readonly home: Home,
    sentMs: number,
    readonly prefix: string,
  ) {
    this.id = granted.allowanceId;
    this.decision = granted.decision ?? DENIED;
    this.countsTokens = granted.tokensCount !== undefined;
    this.granted = {
      callsCount: bounded(granted.callsCount),
      amountNusd: bounded(granted.amountNusd),
      tokensCount: bounded(granted.tokensCount ?? BigInt(Number.MAX_SAFE_INTEGER)),
    };
    this.price = new PriceLine(granted.priceTable);
    this.contextWindow = Number(granted.contextWindow ?? COUNT_MAX);
    this.outputTokensMax = Number(granted.outputTokensMax ?? COUNT_MAX);
    this.outputTokensDefault = Number(granted.outputTokensDefault ?? NONE);
    this.slot = granted.slot;
    [this.serialLow, this.serialHigh] = halves(granted.serial);
    const lifetimeMs = milliseconds(granted.lifetime);
    this.endsMs = sentMs + lifetimeMs;
    this.callTtlMs = milliseconds(granted.callTtl);
    // Clients that began together would else renew together, and keep the daemon busy in bursts:
    // each asks at a moment of its own, an eighth before or behind half the lifetime.
    const share = [...this.id].reduce((sum, one) => sum + one.charCodeAt(0), 0) % 256;
    this.untilMs = sentMs + lifetimeMs * (3 / 8 + share / 1024);
    this.callsMost = Math.floor(this.granted.callsCount / 2);
    this.amountMost = Math.floor(this.granted.amountNusd / 2);
    this.tokensMost = Math.floor(this.granted.tokensCount / (this.countsTokens ? 2 : 1));
  }

  /**
   * Admit one call; undefined where the daemon has to be asked.
   *
   * Shape: the checks of docs/reference/allowances.md, "A draw".
   */
  draw(
    facts: Facts,
    prompt: number | undefined,
    output: number | undefined,
    cost: bigint | undefined,
  ): Drawn | undefined {
    let hold: number;
    let tokens: number;
    if (cost === undefined) {
      let written = output === undefined ? this.outputTokensDefault : output;
      if (prompt === undefined || !isCount(prompt) || !isCount(written)) return undefined;
      if (prompt + written > this.contextWindow) return undefined;
      if (written > this.outputTokensMax) written = this.outputTokensMax;
      tokens = prompt + written;
      hold = this.price.costNusd(prompt, written);
    } else {
      hold = typeof cost === "bigint" && cost <= Number.MAX_SAFE_INTEGER ? Number(cost) : UNPRICED;
      tokens = this.tokensBeside(prompt, output);
    }
    if (hold < 0 || tokens < 0) return undefined;
    const nowMs = this.home.now();
    const number = this.callsCount + 1;
    const amount = this.amountNusd + hold;
    const total = this.tokensCount + tokens;
    if (
      nowMs >= this.untilMs ||
      number > this.callsMost ||
      amount > this.amountMost ||
      total > this.tokensMost ||
      !this.mayWrite()
    ) {
      return undefined;
    }
    // All checks passed; only writes below.
    if (!this.write(number, amount, total)) return undefined;
    return new Drawn(this, facts, number, hold, tokens, prompt, output, cost, Date.now());
  }

  /** Enlarge the hold of a call that runs; false where there is no room for it. */
  drawMore(drawn: Drawn, moreNusd: number, moreTokens: number): boolean {
    const amount = this.amountNusd + moreNusd;
    const total = this.tokensCount + moreTokens;
    if (
      this.isClosed ||
      drawn.end !== undefined ||
      this.home.now() >= this.endsMs ||
      amount > this.granted.amountNusd ||
      total > this.granted.tokensCount ||
      !this.mayWrite()
    ) {
      return false;
    }
    // All checks passed; only writes below.
    if (!this.write(this.callsCount, amount, total)) return false;
    drawn.enlarge(moreNusd, moreTokens);
    return true;
  }

  /** Price a call as `draw` would; 0 where that is not known. */
  holdOf(stated: Amounts): number {
    if (stated.estimatedCostNusd !== undefined) return Number(stated.estimatedCostNusd);
    const output = stated.maxOutputTokens ?? this.outputTokensDefault;
    if (stated.promptTokens === undefined || output < 0) return 0;
    return Math.max(
      0,
      this.price.costNusd(stated.promptTokens, Math.min(output, this.outputTokensMax)),
    );
  }

  /** Let the second half be drawn; false if it was so before, or nothing may be drawn. */
  stretch(): boolean {
    if (this.isLow || this.isClosed) return false;
    this.isLow = true;
    this.untilMs = this.endsMs;
    this.callsMost = this.granted.callsCount;
    this.amountMost = this.granted.amountNusd;
    this.tokensMost = this.granted.tokensCount;
    return true;
  }

  /** Let nothing more be drawn. */
  close(): void {
    this.isClosed = true;
    this.callsMost = NOTHING_MAX;
  }

  sums(): Sums {
    const { callsCount, amountNusd, tokensCount } = this;
    return { callsCount, amountNusd, tokensCount };
  }

  /**
   * Write the sums to the slot of this page from now on, or to none; false if the slot is not the
   * allowance's.
   */
  countIn(pages: Pages | undefined): boolean {
    if (pages !== undefined && this.slot >= 0) {
      if (this.slot >= pages.slotsCount) return false;
      if (!pages.isSerial(this.slot, this.serialLow, this.serialHigh)) return false;
      this.pages = pages;
      return this.write(this.callsCount, this.amountNusd, this.tokensCount);
    }
    this.pages = undefined;
    return true;
  }

  /** Take the first end of a call: "first"; "same" if it was the same before, else "other". */
  closeDraw(drawn: Drawn, end: End): "first" | "same" | "other" {
    if (drawn.end === undefined) {
      drawn.end = end;
      return "first";
    }
    return sameEnd(drawn.end, end) ? "same" : "other";
  }

  private mayWrite(): boolean {
    try {
      return (
        this.home.gate.passes() &&
        (this.pages === undefined ||
          this.pages.isSerial(this.slot, this.serialLow, this.serialHigh))
      );
    } catch {
      this.close(); // the page cannot be read any more: nobody could know of a draw
      return false;
    }
  }

  private write(callsCount: number, amountNusd: number, tokensCount: number): boolean {
    try {
      this.pages?.write(this.slot, callsCount, amountNusd, tokensCount);
    } catch {
      this.close();
      return false;
    }
    this.callsCount = callsCount;
    this.amountNusd = amountNusd;
    this.tokensCount = tokensCount;
    return true;
  }

  /** The tokens of a call that states its cost; negative to refuse. */
  private tokensBeside(prompt: number | undefined, output: number | undefined): number {
    const written = output ?? this.outputTokensDefault;
    if (this.countsTokens && (prompt === undefined || written < 0)) return NONE;
    const [read, wrote] = [prompt ?? 0, written === NONE ? 0 : written];
    if (!isCount(read) || !isCount(wrote) || read + wrote > this.contextWindow) return NONE;
    return read + Math.min(wrote, this.outputTokensMax);
  }
}

/** Whatever is no plain whole number is the daemon's to refuse. */
function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

function bounded(value: bigint): number {
  return Number(value <= BigInt(Number.MAX_SAFE_INTEGER) ? value : BigInt(Number.MAX_SAFE_INTEGER));
}

const DENIED = { verdict: 3 } as WireDecision;
