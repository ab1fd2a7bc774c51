/** Builds requests out of what callers write, and checks them as the daemon would. */

import { OUTCOMES, type Outcome } from "./decision.js";
import { InvalidAsk } from "./errors.js";
import { newAskId } from "./ids.js";
import type {
  AdmitRequest,
  RecordRequest,
  SettleRequest,
  Usage,
  Outcome as WireOutcome,
} from "./pb/costd/v1/admission.js";
import type { Duration } from "./pb/google/protobuf/duration.js";
import { type Counts, readUsage, statesCounts } from "./usage.js";

/** What calls of one kind share. */
export interface Kind {
  taskClass?: string | undefined;
  model?: string | undefined;
  provider?: string | undefined;
  tier?: string | undefined;
  labels?: Readonly<Record<string, string | number>> | undefined;
  /** Models the caller can use instead, `model` or `provider/model`. */
  acceptableModels?: readonly string[] | undefined;
  batch?: boolean | undefined;
  costKind?: string | undefined;
}

/** What one call is expected to cost: tokens, or an amount in whole nano-USD. */
export interface Amounts {
  promptTokens?: number | undefined;
  maxOutputTokens?: number | undefined;
  estimatedCostNusd?: bigint | undefined;
}

/** One question: may this call happen? */
export interface Ask extends Kind, Amounts {
  /** 16 to 128 characters; a UUIDv7 is made without one. */
  askId?: string | undefined;
  overrideGrant?: string | undefined;
  ttlMs?: number | undefined;
  units?: Readonly<Record<string, number>> | undefined;
}

/** What a call used, and how it went: provider usage, costd's own counts, or `costNusd`. */
export interface Used extends Counts {
  /** A provider's usage object or whole response. */
  usage?: unknown;
  costNusd?: bigint | undefined;
  durationMs?: number | undefined;
  outcome?: Outcome | undefined;
  retryCount?: number | undefined;
  /** The model that answered, where it differs from the admitted one. */
  provider?: string | undefined;
  model?: string | undefined;
}

/** What is known when a call ends. */
export interface Closing {
  readonly usage: Usage | undefined;
  readonly costNusd: bigint | undefined;
  readonly durationMs: number;
  readonly outcome: WireOutcome;
  readonly retryCount: number;
  readonly provider: string;
  readonly model: string;
}

/** What every ask of one client starts from. */
export interface Defaults {
  readonly labels: Readonly<Record<string, string>>;
  readonly taskClass: string;
}

export const COUNT_MAX = 1_000_000_000_000;
export const INT64_MAX = 2n ** 63n - 1n;
const LABEL_COUNT_MAX = 64;
const LABEL_KEY_LENGTH_MAX = 64;
const LABEL_VALUE_LENGTH_MAX = 256;
const ACCEPTABLE_COUNT_MAX = 64;
const RESERVED_LABELS = new Set(["provider", "model", "tier", "task_class"]);
const RETRY_COUNT_MAX = 2 ** 31 - 1;
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u;
const NS_PER_MS = 1_000_000;

/**
 * Build a checked AdmitRequest; labels and class are the client's, overwritten by the ask's own.
 *
 * Ensures: an ask that the daemon would refuse is refused here, so that failing open never lets
 * one through. Errors: InvalidAsk naming the field and the rule.
 */
export function buildAsk(defaults: Defaults, ask: Ask): AdmitRequest {
  const request: AdmitRequest = {
    askId: ask.askId ?? newAskId(),
    estimatedCostNusd: money("estimatedCostNusd", ask.estimatedCostNusd),
    promptTokens: count("promptTokens", ask.promptTokens),
    maxOutputTokens: count("maxOutputTokens", ask.maxOutputTokens),
    taskClass: text("taskClass", ask.taskClass) || defaults.taskClass,
    labels: { ...defaults.labels, ...labelTexts(ask.labels) },
    provider: text("provider", ask.provider),
    model: text("model", ask.model),
    tier: text("tier", ask.tier),
    acceptableModels: [...(ask.acceptableModels ?? [])],
    overrideGrant: text("overrideGrant", ask.overrideGrant),
    ttl: ask.ttlMs === undefined ? undefined : duration("ttlMs", ask.ttlMs),
    batch: ask.batch ?? false,
    costKind: text("costKind", ask.costKind),
    units: Object.fromEntries(
      Object.entries(ask.units ?? {}).map(([unit, many]) => [
        unit,
        count(`units[${unit}]`, many) ?? 0n,
      ]),
    ),
  };
  const idLength = lengthOf(request.askId);
  if (idLength < 16 || idLength > 128) {
    throw new InvalidAsk(
      `askId has ${idLength} characters; it must have 16 to 128 (without one a UUIDv7 is made)`,
    );
  }
  if (request.acceptableModels.length > ACCEPTABLE_COUNT_MAX) {
    throw new InvalidAsk(`acceptableModels has more than ${ACCEPTABLE_COUNT_MAX} entries`);
  }
  checkLabels(request.labels);
  return request;
}

/** Read what a caller says of a call that ended. Errors: InvalidAsk. */
export function buildClosing(used: Used): Closing {
  const cost = money("costNusd", used.costNusd);
  const hasUsage = (used.usage !== undefined && used.usage !== null) || statesCounts(used);
  if (cost !== undefined && hasUsage)
    throw new InvalidAsk("give either usage or costNusd, not both");
  if (cost === undefined && !hasUsage) {
    throw new InvalidAsk("say what the call used: provider usage, token counts, or costNusd");
  }
  return {
    ...howItWent(used),
    usage: hasUsage ? readUsage(used.usage, used) : undefined,
    costNusd: cost,
  };
}

/** Read how a call went of which nobody knows what it used. Errors: InvalidAsk. */
export function howItWent(used: Used): Closing {
  const outcome = used.outcome ?? "ok";
  if (!(outcome in OUTCOMES)) {
    throw new InvalidAsk(`outcome must be one of ${Object.keys(OUTCOMES).join(", ")}`);
  }
  const retryCount = used.retryCount ?? 0;
  if (!Number.isSafeInteger(retryCount) || retryCount < 0 || retryCount > RETRY_COUNT_MAX) {
    throw new InvalidAsk(`retryCount is ${String(retryCount)}; it must be a whole number from 0`);
  }
  const durationMs = used.durationMs ?? 0;
  duration("durationMs", durationMs);
  return {
    usage: undefined,
    costNusd: undefined,
    durationMs,
    outcome: OUTCOMES[outcome],
    retryCount,
    provider: text("provider", used.provider),
    model: text("model", used.model),
  };
}

/** The fields of a closing as `SettleRequest`, `RecordRequest` and `DrawSettlement` have them. */
export function closingFields(closing: Closing) {
  return {
    usage: closing.usage,
    costNusd: closing.costNusd,
    duration: duration("durationMs", closing.durationMs),
    outcome: closing.outcome,
    retryCount: closing.retryCount,
    provider: closing.provider,
    model: closing.model,
  };
}

export function buildSettle(reservationId: string, closing: Closing): SettleRequest {
  return { reservationId, ...closingFields(closing) };
}

/**
 * Build the request that charges a call which was made without a decision.
 *
 * Ensures: `recordId` is the ask's id, so that the daemon settles the reservation instead if the
 * ask had reached it after all. With nothing measured, the ask's own estimate is charged.
 */
export function buildRecord(
  ask: AdmitRequest,
  closing: Closing,
  happenedNs: bigint,
): RecordRequest {
  const known =
    closing.usage === undefined && closing.costNusd === undefined
      ? estimated(ask, closing)
      : closing;
  return {
    ...closingFields(known),
    recordId: ask.askId,
    taskClass: ask.taskClass,
    labels: ask.labels,
    provider: known.provider || ask.provider,
    model: known.model || ask.model,
    happenedNs,
    costKind: ask.costKind,
    batch: ask.batch,
  };
}

function estimated(ask: AdmitRequest, closing: Closing): Closing {
  if (ask.estimatedCostNusd !== undefined) return { ...closing, costNusd: ask.estimatedCostNusd };
  const usage = readUsage(undefined);
  usage.promptTokens = ask.promptTokens ?? 0n;
  usage.outputTokens = ask.maxOutputTokens ?? 0n;
  usage.units = ask.units;
  return { ...closing, usage };
}

/** Now, or a moment of `Date.now()`, in nanoseconds of Unix time. */
export function unixNs(unixMs: number = Date.now()): bigint {
  return BigInt(Math.round(unixMs)) * BigInt(NS_PER_MS);
}

/** Write milliseconds as a Duration. Errors: InvalidAsk. */
export function duration(name: string, ms: number): Duration {
  if (!(ms >= 0 && ms < 1e14)) {
    throw new InvalidAsk(`${name} is ${String(ms)}; it must be at least 0`);
  }
  const seconds = Math.floor(ms / 1000);
  // Rounding may reach the next whole second.
  const nanos = Math.round((ms - seconds * 1000) * NS_PER_MS);
  const whole = nanos === 1_000_000_000;
  return { seconds: BigInt(seconds) + (whole ? 1n : 0n), nanos: whole ? 0 : nanos };
}

/** Read a Duration as milliseconds. */
export function milliseconds(span: Duration | undefined): number {
  return span === undefined ? 0 : Number(span.seconds) * 1000 + span.nanos / NS_PER_MS;
}

/** Check an amount of money: whole nano-USD, as a bigint, so that no float ever is one. */
export function money(name: string, value: bigint | undefined): bigint | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "bigint") {
    throw new InvalidAsk(
      `${name} is the ${typeof value} ${String(value)}; money is a bigint of nano-USD, such as 5_000_000n`,
    );
  }
  if (value < 0n || value > INT64_MAX) {
    throw new InvalidAsk(`${name} is ${value}; it must lie in 0 … 2^63 - 1`);
  }
  return value;
}

/** Check a count of tokens or units. */
export function count(name: string, value: number | undefined): bigint | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0 || value > COUNT_MAX) {
    throw new InvalidAsk(
      `${name} is ${String(value)}; it must be a whole number in 0 … ${COUNT_MAX}`,
    );
  }
  return BigInt(value);
}

function text(name: string, value: string | undefined): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string")
    throw new InvalidAsk(`${name} is a ${typeof value}; it must be text`);
  return value;
}

function labelTexts(labels: Kind["labels"]): Record<string, string> {
  return Object.fromEntries(Object.entries(labels ?? {}).map(([key, value]) => [key, `${value}`]));
}

function checkLabels(labels: Readonly<Record<string, string>>): void {
  const pairs = Object.entries(labels);
  if (pairs.length > LABEL_COUNT_MAX) {
    throw new InvalidAsk(
      `labels has ${pairs.length} entries; at most ${LABEL_COUNT_MAX} are allowed`,
    );
  }
  for (const [key, value] of pairs) {
    const shown = JSON.stringify(key.slice(0, 80));
    if (key === "" || lengthOf(key) > LABEL_KEY_LENGTH_MAX) {
      throw new InvalidAsk(
        `labels: key ${shown} must have 1 to ${LABEL_KEY_LENGTH_MAX} characters`,
      );
    }
    if (lengthOf(value) > LABEL_VALUE_LENGTH_MAX) {
      throw new InvalidAsk(`labels[${key}] has more than ${LABEL_VALUE_LENGTH_MAX} characters`);
    }
    if (RESERVED_LABELS.has(key)) {
      throw new InvalidAsk(`labels[${key}]: ${key} has a field of its own; set that instead`);
    }
    if (UNPRINTABLE.test(key) || UNPRINTABLE.test(value)) {
      throw new InvalidAsk(`labels[${shown}] has characters that cannot be printed`);
    }
  }
}

/** Count characters as the daemon does: code points, not UTF-16 units. */
function lengthOf(value: string): number {
  return value.length <= 16 ? value.length : [...value].length;
}
