/** Calls admitted in the process, from a real daemon's allowances. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  type Admitted,
  Client,
  type Decision,
  InvalidAsk,
  ReservationClosed,
  type Scope,
} from "../src/index.js";
import { Daemon, until } from "./daemon.js";

const KIND = { taskClass: "draft", model: "gpt-4o" };
const ONE = { promptTokens: 1_000, maxOutputTokens: 100 };
/** 1,000 tokens at 2,500 nusd, and 100 at 10,000. */
const HOLD_NUSD = 3_500_000n;

let daemon: Daemon;
let team = 0;

before(async () => {
  daemon = await new Daemon(undefined, ["--listen", "127.0.0.1:0"]).start();
});

after(() => daemon.close());

/** A client whose calls the books count apart from those of other tests. */
function connect(address = daemon.address) {
  team += 1;
  const name = `team-${team}`;
  const said: string[] = [];
  const log = (level: string, message: string) => level !== "info" && said.push(message);
  const client = new Client({ address, caller: name, labels: { team: name }, log });
  const books = async () => {
    const { budgets } = (await daemon.operate("ListBudgets", { budget: "teams" })) as {
      budgets: Record<string, string>[];
    };
    const row = budgets.find((one) => one.key === `team=${name}`) ?? {};
    return [row.settled, row.reserved, row.unadmitted, row.late].map((one) => BigInt(one ?? 0));
  };
  const events = async () =>
    (await daemon.events()).filter((one) => (one.labels as Record<string, string>).team === name);
  return { client, books, events, said };
}

/** Ask until the process decides by itself; what the daemon decided on the way is voided. */
async function drawn(client: Client, ask: () => Promise<Decision>): Promise<Admitted> {
  return until(async () => {
    const decision = await ask();
    assert(decision.allowed);
    if (decision.source === "allowance") return decision;
    await client.void(decision);
    return undefined;
  }, "a draw");
}

/** Draw and settle so often; returns what it cost and how many were drawn. */
async function spend(client: Client, scope: Scope, count: number) {
  let [cost, draws] = [0n, 0];
  for (let number = 0; number < count; number += 1) {
    const decision = await scope.admit(ONE);
    const costNusd = BigInt(1 + (number % 11));
    await client.settle(decision, { costNusd });
    cost += costNusd;
    draws += decision.source === "allowance" ? 1 : 0;
  }
  return { cost, draws };
}

for (const way of ["pages", "the stream"]) {
  test(`what is drawn and settled is in the books to the nano-dollar, told by ${way}`, async () => {
    const { client, books, events, said } = connect(
      way === "pages" ? daemon.address : daemon.listenAddress,
    );
    const scope = client.scope(KIND);
    await drawn(client, () => scope.admit(ONE)).then((one) => client.void(one));
    const { cost, draws } = await spend(client, scope, 2_000);
    assert(draws > 1_500, `${draws} were drawn`);
    assert(await client.flush());
    assert.equal(client.unheardCount, 0);
    assert.equal((await books())[0], cost);
    await client.close();
    assert.deepEqual(await books(), [cost, 0n, 0n, 0n]);
    const ids = (await events()).map((one) => one.ask_id);
    assert.equal(new Set(ids).size, 2_000);
    assert.deepEqual(said, []);
  });
}

test("no label's value passes for another label, and so for another scope", async () => {
  const { client } = connect();
  const ask = { ...KIND, ...ONE, labels: { user: "u", run: "r" } };
  await client.void(await drawn(client, () => client.admit(ask)));
  for (const user of ["u\0run\0r", "u1:run1:r", "u3:run1:r"]) {
    const forged = { ...ask, labels: { user } };
    const said = await client.admit(forged).catch((error: unknown) => error);
    if (said instanceof InvalidAsk) continue;
    assert.deepEqual((said as Decision).ask.labels.user, user);
    await client.void(said as Decision);
  }
  await client.close();
});

test("usage is priced by the daemon, and labels that no rule reads ride along", async () => {
  const { client, books, events } = connect();
  const ask = { ...KIND, ...ONE, labels: { run: "r7" } };
  const decision = await drawn(client, () => client.admit(ask));
  assert.equal(decision.holdNusd, HOLD_NUSD);
  assert.equal(decision.model, "gpt-4o");
  assert.equal(decision.ask.labels.run, "r7");
  assert.equal(decision.maxOutputTokens, 100);
  const used = {
    usage: { prompt_tokens: 10, completion_tokens: 1 },
    durationMs: 12.5,
    retryCount: 2,
  };
  assert.equal((await client.settle(decision, used)).queued, true);
  await client.close();
  assert.deepEqual(await books(), [35_000n, 0n, 0n, 0n]);
  const [event] = await events();
  assert.equal(((event?.labels ?? {}) as Record<string, string>).run, "r7");
  assert.deepEqual([event?.ask_id, event?.retry_count], [decision.askId, 2]);
});

test("a drawn call is closed once; the same again changes nothing, another is refused", async () => {
  const { client, books } = connect();
  const scope = client.scope(KIND);
  const decision = await drawn(client, () => scope.admit(ONE));
  await client.settle(decision, { costNusd: 5n });
  await client.settle(decision, { costNusd: 5n });
  await assert.rejects(client.settle(decision, { costNusd: 6n }), ReservationClosed);
  await assert.rejects(client.void(decision), ReservationClosed);
  await client.close();
  assert.deepEqual(await books(), [5n, 0n, 0n, 0n]);
});

test("a hold is enlarged from the same allowance, and refused with stop beyond it", async () => {
  const { client, books } = connect();
  const scope = client.scope(KIND);
  const decision = await drawn(client, () => scope.admit(ONE));
  const extension = await client.extend(decision, { additionalOutputTokens: 100 });
  assert.equal(extension.extended, true);
  assert.equal(decision.holdNusd, HOLD_NUSD + 1_000_000n);
  const refused = await client.extend(decision, { additionalCostNusd: 10n ** 12n });
  assert.deepEqual([refused.extended, refused.directives?.stop], [false, true]);
  await client.settle(decision, { costNusd: 4_400_000n });
  await client.close();
  assert.deepEqual(await books(), [4_400_000n, 0n, 0n, 0n]);
});

test("amounts that cannot be drawn are asked of the daemon", async () => {
  const { client } = connect();
  const scope = client.scope(KIND);
  await drawn(client, () => scope.admit(ONE));
  for (const amounts of [
    { promptTokens: 1_000, maxOutputTokens: 1_000_000 },
    { estimatedCostNusd: 200_000_000_000n },
  ]) {
    assert.equal(scope.draw(amounts), undefined);
    assert.equal((await scope.admit(amounts)).source, "daemon");
  }
  assert.throws(() => client.scope({ labels: { tier: "x" } }), /field of its own/);
  const withUnits = await client.admit({ ...KIND, ...ONE, units: { web_searches: 1 } });
  assert.equal(withUnits.source, "daemon");
  await client.close();
});

test("a kill switch is seen by the very next draw", async () => {
  const { client } = connect();
  const scope = client.scope(KIND);
  await drawn(client, () => scope.admit(ONE)).then((one) => client.void(one));
  assert(scope.draw(ONE)?.allowed);
  // No turn of the event loop lies between: only the page can have told.
  daemon.costctl("kill", "--scope", `team=${client.caller}`, "--reason", "test");
  assert.equal(scope.draw(ONE), undefined);
  assert.equal((await scope.admit(ONE)).reason, "KILL_SWITCH");
  const { kills } = (await daemon.operate("ListKills")) as { kills: { kill_id: string }[] };
  await daemon.operate("ReleaseKill", { ...kills[0], actor: "me", reason: "done" });
  await drawn(client, () => scope.admit(ONE)).then((one) => client.void(one));
  await client.close();
});

test("a drill is confirmed and stops nobody", async () => {
  const { client } = connect();
  const scope = client.scope(KIND);
  await drawn(client, () => scope.admit(ONE)).then((one) => client.void(one));
  const report = (await daemon.operate("Drill", { actor: "me", reason: "test" })) as {
    clients?: Record<string, unknown>[];
  };
  assert.match(JSON.stringify(report), new RegExp(`"${client.caller}"`));
  await drawn(client, () => scope.admit(ONE)).then((one) => client.void(one));
  await client.close();
});

test("an allowance is drawn until its lifetime ends, and not after it", async () => {
  const { client } = connect();
  const scope = client.scope(KIND);
  await drawn(client, () => scope.admit(ONE)).then((one) => client.void(one));
  await spend(client, scope, 1_000);
  assert(await client.flush());
  daemon.signal("SIGSTOP");
  const stoppedMs = performance.now();
  let lastMs = 0;
  let count = 0;
  try {
    await until(() => {
      const nowMs = performance.now();
      if (scope.draw({ estimatedCostNusd: 1n }) === undefined) return true;
      lastMs = nowMs;
      count += 1;
      return false;
    }, "nothing is drawn any more");
  } finally {
    daemon.signal("SIGCONT");
  }
  // Whatever is held was granted before the daemon stopped, for at most two seconds.
  assert(count > 0);
  assert(lastMs - stoppedMs <= 2_000, `drawn ${lastMs - stoppedMs} ms later`);
  await client.close();
});
