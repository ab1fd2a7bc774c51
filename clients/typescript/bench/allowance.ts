/**
 * Measures calls admitted in one Node process; run by the benchmark of the whole, round by round.
 *
 * Reads how many calls to measure, a line each, and answers with a line of JSON: times in µs of
 * those that were decided in the process, and the share that the daemon was asked for.
 */

import { createInterface } from "node:readline";
import { Client, type Scope } from "../src/index.js";

const AMOUNTS = { promptTokens: 1_200, maxOutputTokens: 400 };
const USED = { promptTokens: 1_150, cachedTokens: 600, outputTokens: 180 };
const LABELS = {
  project: "api",
  team: "platform",
  user: "u0000000",
  agent_type: "coder",
  run: "run-0",
};
const WARM_COUNT = 1_000;
const WARM_MS_MAX = 20_000;
const HEARD_MS_MAX = 60_000;

/** Admit until so many calls in a row were decided in the process. */
async function warmUp(scope: Scope): Promise<void> {
  const endMs = performance.now() + WARM_MS_MAX;
  for (let inARow = 0; inARow < WARM_COUNT; ) {
    inARow = (await scope.admit(AMOUNTS)).source === "allowance" ? inARow + 1 : 0;
    // A busy loop would keep grants from being heard.
    if (inARow % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    if (performance.now() > endMs) throw new Error("no allowance keeps up");
  }
}

function quantile(sortedNs: readonly number[], share: number): number {
  return (sortedNs[Math.floor(sortedNs.length * share)] ?? 0) / 1_000;
}

/** Time admits, and whole calls; every hundred the event loop has its turn, as in a program. */
async function measure(client: Client, scope: Scope, count: number, settles: boolean) {
  await warmUp(scope);
  const drawnNs: number[] = [];
  for (let number = 0; number < count; number += 1) {
    const startedNs = process.hrtime.bigint();
    const decision = await scope.admit(AMOUNTS);
    if (settles) await client.settle(decision, USED);
    const tookNs = Number(process.hrtime.bigint() - startedNs);
    if (decision.source === "allowance") drawnNs.push(tookNs);
    if (number % 100 === 99) await new Promise((resolve) => setImmediate(resolve));
  }
  if (settles && !(await client.flush(HEARD_MS_MAX))) throw new Error("the daemon did not hear");
  drawnNs.sort((one, other) => one - other);
  return {
    p50_us: quantile(drawnNs, 0.5),
    p99_us: quantile(drawnNs, 0.99),
    asked_percent: 100 * (1 - drawnNs.length / count),
  };
}

const [address = ""] = process.argv.slice(2);
const client = new Client({ address, caller: "bench" });
const kind = { taskClass: "draft", provider: "openai", model: "gpt-4o", labels: LABELS };
const scope = client.scope(kind);
for await (const line of createInterface({ input: process.stdin })) {
  const admit = await measure(client, scope, Number(line), false);
  const call = await measure(client, scope, Number(line), true);
  console.log(JSON.stringify({ admit, call }));
}
await client.close();
