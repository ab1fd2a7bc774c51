/** Clients and daemons that are killed with 9: what the books say afterwards. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createConnection, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Client, Unavailable } from "../src/index.js";
import { Daemon, until } from "./daemon.js";

const HOLD_NUSD = 1_000_000n;
const KIND = { model: "gpt-4o" };
const ONE = { estimatedCostNusd: HOLD_NUSD };

let daemon: Daemon;

before(async () => {
  const policy = (text: string) =>
    text.replace("{ttl: 1h}", "{ttl: 1s}").replace("{for: 2s}", "{for: 1s}");
  daemon = await new Daemon(policy).start();
});

after(() => daemon.close());

/** What was charged since then, once nothing is held any more. */
async function charged(since: bigint): Promise<bigint> {
  const books = await until(async () => {
    const found = await daemon.books();
    return found.reserved === 0n ? found : undefined;
  }, "nothing is held");
  assert.deepEqual([books.unadmitted, books.late], [0n, 0n]);
  return books.settled - since;
}

for (const how of ["drawing", "settling"]) {
  test(`a client killed while ${how} is charged for exactly what it let go`, async () => {
    const { settled } = await daemon.books();
    const child = spawn(process.execPath, [
      join(import.meta.dirname, "dying.js"),
      daemon.address,
      how,
    ]);
    const [, signal] = await once(child, "exit");
    assert.equal(signal, "SIGKILL");
    const cost = await charged(settled);
    // Of ten calls settled in the last moment the daemon may have heard some.
    const told = (20n * 7n + 30n * HOLD_NUSD - cost) / (HOLD_NUSD - 7n);
    assert.equal(cost, 20n * 7n + told * 7n + (30n - told) * HOLD_NUSD);
    assert(told >= 0n && told <= (how === "settling" ? 10n : 0n), `${told} were told`);
  });
}

test("a program that forgets to close its client tells all, and ends by itself", async () => {
  const { settled } = await daemon.books();
  const program = join(import.meta.dirname, "dying.js");
  const child = spawn(process.execPath, [program, daemon.address, "forgetting"]);
  assert.deepEqual(await once(child, "exit"), [0, null]);
  assert.equal(await charged(settled), 20n * 7n);
});

test("calls go on while the daemon is dead, and are booked once when it is back", async () => {
  const client = new Client({
    address: daemon.address,
    caller: "t",
    labels: { team: "a" },
    timeoutMs: 200,
    log: () => {},
  });
  const scope = client.scope(KIND);
  const draw = () =>
    until(async () => {
      const decision = await scope.admit(ONE);
      if (decision.source === "allowance") return decision;
      await client.void(decision);
      return undefined;
    }, "a draw");
  await client.void(await draw());
  assert(await client.flush());
  const { settled } = await daemon.books();
  let decision = await draw();
  await daemon.kill();
  for (const costNusd of [1n, 2n, 3n]) {
    await client.settle(decision, { costNusd });
    decision = await scope.admit(ONE);
    assert.equal(decision.source, "allowance");
  }
  await client.void(decision);
  assert.equal(await client.flush(20), false);
  assert.equal(client.unheardCount, 4);
  // Once its lifetime is over, it is the fail mode's turn.
  const end = await until(
    () =>
      scope.admit(ONE).then(
        (late) => client.void(late).then(() => undefined),
        (error: unknown) => error,
      ),
    "nothing is drawn any more",
  );
  assert(end instanceof Unavailable);
  await daemon.start();
  assert(await client.flush());
  assert.equal(client.unheardCount, 0);
  await client.void(await draw());
  await client.close();
  assert.equal(await charged(settled), 6n);
  const costs = (await daemon.events()).map((one) => String(one.cost_nusd));
  const booked = costs.filter((cost) => ["1", "2", "3"].includes(cost));
  assert.deepEqual(booked.sort(), ["1", "2", "3"]);
});

for (const way of ["pages", "the stream"]) {
  test(`connections that break again lose and double nothing: by ${way}`, () => breakAgain(way));
}

async function breakAgain(way: string): Promise<void> {
  const sockets = new Set<Socket>();
  const proxy = createServer((near) => {
    const far = createConnection(daemon.address.slice("unix:".length));
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  const path = join(daemon.directory, `${way.length}.sock`);
  proxy.listen(way === "pages" ? { path } : { port: 0, host: "127.0.0.1" });
  await once(proxy, "listening");
  const at = proxy.address();
  const port = typeof at === "object" ? at?.port : undefined;
  const { settled } = await daemon.books();
  const client = new Client({
    address: port === undefined ? `unix:${path}` : `127.0.0.1:${port}`,
    caller: `cut ${way.length}`,
    labels: { team: "a" },
    log: () => {},
  });
  const scope = client.scope(KIND);
  let [cost, draws, cuts] = [0n, 0, 0];
  const endMs = performance.now() + 1_500;
  const cutting = setInterval(() => {
    if (performance.now() > endMs) return;
    cuts += 1;
    for (const socket of sockets) socket.destroy();
  }, 60);
  for (let number = 1n; performance.now() < endMs || draws < 100; number += 1n) {
    const decision = await scope.admit(ONE);
    cost += number;
    draws += decision.source === "allowance" ? 1 : 0;
    await client.settle(decision, { costNusd: number });
    if (number % 10n === 0n) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  clearInterval(cutting);
  assert(cuts > 5 && draws > 100, `${cuts} cuts, ${draws} draws`);
  assert(await client.flush());
  await client.close(10_000);
  proxy.close();
  assert.equal(await charged(settled), cost);
}
