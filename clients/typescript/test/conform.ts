/** Performs a scenario of calls and says what came of each; the Python client plays the same. */

import { readFileSync } from "node:fs";
import { type Ask, Client, CostdError, type Used } from "../src/index.js";

interface Step {
  ask: Ask & { estimatedCostNusd?: bigint };
  end: "settle" | "void" | "record" | "explain";
  used: Used & { costNusd?: bigint };
}

const { address, team, allowances, steps } = JSON.parse(
  readFileSync(0, "utf8"),
  // JSON has no whole numbers of 64 bits: money travels as text.
  (key, value) => (key.endsWith("Nusd") ? BigInt(value) : value),
) as { address: string; team: string; allowances: boolean; steps: Step[] };

const client = new Client({ address, caller: "conform", labels: { team }, allowances });
const said: unknown[] = [];
for (const { ask, end, used } of steps) {
  try {
    said.push(await play(ask, end, used));
  } catch (error) {
    if (!(error instanceof CostdError)) throw error;
    said.push(error.name);
  }
}

async function play(ask: Ask, end: Step["end"], used: Used): Promise<unknown> {
  if (end === "record") return String((await client.record({ ask, ...used })).costNusd);
  if (end === "explain") {
    const { candidates, decision } = await client.explain(ask);
    return [String(decision?.holdNusd), candidates.map((one) => [one.model, one.outcome])];
  }
  const decision = await client.admit(ask);
  const about = [decision.verdict, decision.reason, decision.model, decision.tier];
  const told = [...about, String(decision.holdNusd), decision.maxOutputTokens ?? null];
  if (!decision.allowed) return told;
  const settlement = await (end === "void" ? client.void(decision) : client.settle(decision, used));
  return [...told, settlement.costNusd === undefined ? null : String(settlement.costNusd)];
}

await client.flush();
await client.close();
console.log(JSON.stringify(said));
