/** What a session says and does when the daemon says what it seldom says. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Facts } from "../src/facts.js";
import {
  type AllowanceRequest,
  type ClientMessage,
  DaemonMessage,
  Generation,
  Verdict,
  Welcome,
} from "../src/pb/costd/v1/admission.js";
import { buildAsk } from "../src/requests.js";
import { ProtocolBroken, Session } from "../src/session.js";

const AMOUNTS = { estimatedCostNusd: 10n };

function begin(sharesFiles = false): Session {
  return new Session({ sharesFiles, settlementsCountMax: 3, log: () => {} });
}

function welcome(more: Partial<Welcome> = {}): DaemonMessage {
  const value = Welcome.fromPartial({ scopeLabels: ["team"], generation: 5n, ...more });
  return { message: { $case: "welcome", value } };
}

function said<K extends string>(messages: ClientMessage[], kind: K) {
  return messages.flatMap(({ message }) => (message?.$case === kind ? [message.value] : []));
}

/** A session with an allowance of ten calls, and what its calls share. */
function granted(): { session: Session; facts: Facts; allowanceId: string } {
  const session = begin();
  session.opened();
  session.received(welcome());
  const typical = buildAsk({ labels: { team: "a", run: "r" }, taskClass: "" }, { model: "m" });
  const facts = new Facts(typical);
  session.bind(facts);
  assert.equal(session.draw(facts, AMOUNTS), undefined);
  const [request] = said(session.poll(), "request") as AllowanceRequest[];
  assert(request !== undefined);
  // Labels that no rule reads are not the scope's.
  assert.deepEqual(request.typical?.labels, { team: "a" });
  session.received(
    DaemonMessage.fromPartial({
      message: {
        $case: "grant",
        value: {
          requestId: request.requestId,
          allowance: {
            allowanceId: "a1",
            decision: { verdict: Verdict.VERDICT_ALLOW },
            amountNusd: 1_000n,
            callsCount: 10n,
            lifetime: { seconds: 60n, nanos: 0 },
            slot: -1,
          },
        },
      },
    }),
  );
  return { session, facts, allowanceId: "a1" };
}

function changed(more: Partial<Generation>): DaemonMessage {
  const value = Generation.fromPartial({ scopeLabels: ["team"], ...more });
  return { message: { $case: "generation", value } };
}

test("pages that cannot be opened are done without, from the next Hello on", () => {
  const session = begin(true);
  const first = said([session.opened()], "hello")[0] as { mapsPages: boolean };
  assert.equal(first.mapsPages, process.platform === "linux");
  session.received(welcome({ daemonPage: "/nowhere/daemon", clientPage: "/nowhere/client" }));
  assert.equal(session.mustReopen, process.platform === "linux");
  session.broken();
  const second = said([session.opened()], "hello")[0] as { mapsPages: boolean };
  assert.equal(second.mapsPages, false);
  session.received(welcome());
  assert.equal(session.mustReopen, false);
});

test("a daemon that breaks the order of messages is not believed", () => {
  const session = begin();
  assert.throws(() => session.received(welcome()), ProtocolBroken);
  session.opened();
  assert.throws(() => session.received(changed({ generation: 6n })), ProtocolBroken);
  session.received(welcome());
  assert.throws(() => session.received(welcome()), ProtocolBroken);
});

test("without pages a changed generation is followed, and confirmed where that is asked", () => {
  const { session, facts } = granted();
  assert(session.draw(facts, AMOUNTS));
  session.received(changed({ generation: 6n, confirm: true }));
  const [report] = said(session.poll(), "report") as { generation: bigint }[];
  assert.equal(report?.generation, 6n);
  assert(session.draw(facts, AMOUNTS));
});

test("a revoked allowance is drawn no more, and returned with all that was drawn", () => {
  const { session, facts, allowanceId } = granted();
  for (let count = 0; count < 3; count += 1) assert(session.draw(facts, AMOUNTS));
  session.received(
    DaemonMessage.fromPartial({ message: { $case: "revocation", value: { allowanceId } } }),
  );
  assert.equal(session.draw(facts, AMOUNTS), undefined);
  const [report] = said(session.poll(), "report") as {
    returnedAllowanceIds: string[];
    drawn: object[];
  }[];
  assert.deepEqual(report?.returnedAllowanceIds, [allowanceId]);
  assert.deepEqual(report?.drawn, [
    { allowanceId, callsCount: 3n, amountNusd: 30n, tokensCount: 0n },
  ]);
});

test("what other scope labels were granted for is returned when those change", () => {
  const { session, facts } = granted();
  assert(session.draw(facts, AMOUNTS));
  session.received(changed({ generation: 6n, scopeLabels: ["team", "run"] }));
  assert.equal(session.draw(facts, AMOUNTS), undefined);
  const [report] = said(session.poll(), "report") as { returnedAllowanceIds: string[] }[];
  assert.equal(report?.returnedAllowanceIds.length, 1);
});

test("what was not booked is sent again on the next stream, numbered as the daemon knows", () => {
  const { session, facts } = granted();
  const drawn = session.draw(facts, AMOUNTS);
  assert(drawn);
  session.end(drawn, { closing: undefined, settledMs: 0 });
  session.hurry();
  const [first] = said(session.poll(), "report") as { sequence: bigint }[];
  assert.equal(first?.sequence, 1n);
  session.broken();
  session.opened();
  session.received(welcome({ reportSequence: 0n, goodAllowanceIds: ["a1"] }));
  const [again] = said(session.poll(), "report") as { sequence: bigint; settlements: object[] }[];
  assert.deepEqual([again?.sequence, again?.settlements.length], [1n, 1]);
  session.broken();
  session.opened();
  // Other books: restored, say. Nothing is lost by it.
  session.received(welcome({ reportSequence: 7n, goodAllowanceIds: ["a1"] }));
  const [anew] = said(session.poll(), "report") as { sequence: bigint; settlements: object[] }[];
  assert.deepEqual([anew?.sequence, anew?.settlements.length], [8n, 1]);
});

test("a grant that was lost with its stream is returned at once, and no other twice", () => {
  const { session, allowanceId } = granted();
  session.broken();
  const [hello] = said([session.opened()], "hello") as { heldAllowanceIds: string[] }[];
  assert.deepEqual(hello?.heldAllowanceIds, [allowanceId]);
  const back = { goodAllowanceIds: [allowanceId], unnamedAllowanceIds: ["lost"] };
  session.received(welcome(back));
  assert.deepEqual([session.isQuiet, session.waitMs], [false, 0]);
  const [report] = said(session.poll(), "report") as { returnedAllowanceIds: string[] }[];
  assert.deepEqual(report?.returnedAllowanceIds, ["lost"]);
  session.broken();
  session.opened();
  session.received(welcome(back));
  const again = said(session.poll(), "report") as { returnedAllowanceIds: string[] }[];
  assert.deepEqual(again, [report]);
  session.broken();
  session.opened();
  // Other books may have open what was returned long ago.
  session.received(welcome({ ...back, reportSequence: 7n, unnamedAllowanceIds: ["old"] }));
  const [anew] = said(session.poll(), "report") as { returnedAllowanceIds: string[] }[];
  assert.deepEqual(anew?.returnedAllowanceIds, ["lost"]);
});

test("nothing is drawn while too many ended calls are unheard of", () => {
  const { session, facts } = granted();
  for (let count = 0; count < 3; count += 1) {
    const drawn = session.draw(facts, AMOUNTS);
    assert(drawn);
    session.end(drawn, { closing: undefined, settledMs: 0 });
  }
  assert.equal(session.isFull, true);
  assert.equal(session.draw(facts, AMOUNTS), undefined);
});
