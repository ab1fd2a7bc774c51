/** A program that draws, settles some of it, and is killed, or forgets to close its client. */

import { Client } from "../src/index.js";

const [address = "", how = ""] = process.argv.slice(2);
const client = new Client({ address, caller: "dying", labels: { team: "dying" } });
const scope = client.scope({ model: "gpt-4o" });
const ONE = { estimatedCostNusd: 1_000_000n };

async function drawn() {
  for (;;) {
    const decision = await scope.admit(ONE);
    if (decision.source === "allowance") return decision;
    await client.void(decision);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

for (let number = 0; number < 20; number += 1) await client.settle(await drawn(), { costNusd: 7n });
if (how !== "forgetting" && !(await client.flush())) throw new Error("the daemon did not hear");
for (let number = 0; number < (how === "forgetting" ? 0 : 30); number += 1) {
  const decision = await drawn();
  if (how === "settling" && number < 10) await client.settle(decision, { costNusd: 7n });
}
if (how !== "forgetting") process.kill(process.pid, "SIGKILL");
