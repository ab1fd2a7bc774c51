/** What callers say to a client beside their asks. */

import { basename } from "node:path";
import type { FailMode } from "./fail-mode.js";
import type { Log } from "./outbox.js";
import type { Counts } from "./usage.js";

/** How one client behaves; all of it may be left out. */
export interface ClientOptions {
  /** A gRPC target; `COSTD_ADDRESS`, then `COSTD_SOCKET`, then this host's daemon. */
  address?: string;
  /** Who asks; ask ids are unique per caller. `COSTD_CALLER`, then the program's name. */
  caller?: string;
  /** For every ask. */
  labels?: Readonly<Record<string, string | number>>;
  taskClass?: string;
  /** For one request, repeats included. */
  timeoutMs?: number;
  /** What happens to a call on which no decision can be had. */
  failMode?: FailMode;
  /** What may be spent undecided with fail mode `safe`. */
  safeAllowanceNusd?: bigint;
  /** What an ask in tokens costs with fail mode `safe`. */
  priceGuessNusdPer1kTokens?: bigint;
  /** How many calls may wait to be recorded. */
  outboxCapacityCount?: number;
  /** Decide in the process where the daemon allows it. */
  allowances?: boolean;
  /** Takes what nobody else is told; warnings and errors go to the console without it. */
  log?: Log;
}

/** How long one request may take its caller. */
export interface Waiting {
  signal?: AbortSignal;
}

/** What to enlarge or lengthen a hold by. */
export interface More {
  additionalCostNusd?: bigint;
  additionalOutputTokens?: number;
  ttlMs?: number;
  /** What was used so far, in total. */
  usageSoFar?: Counts;
}

/** Name the caller where nobody does. */
export function programName(): string {
  return basename(process.argv[1] ?? "").replace(/[^\x20-\x7e]/g, "") || "node";
}

/** Tell warnings and errors where nobody takes them. */
export function toConsole(level: "info" | "warn" | "error", message: string): void {
  if (level !== "info") console[level](`costd: ${message}`);
}
