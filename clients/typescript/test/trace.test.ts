/** The caller's trace goes with a request; heard by a real gRPC server, which keeps the metadata. */

import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { after, before, test } from "node:test";
import {
  type Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import {
  type Context,
  context,
  createTraceState,
  ROOT_CONTEXT,
  TraceFlags,
  trace,
} from "@opentelemetry/api";
import { Client } from "../src/index.js";
import { AdmissionService, type AdmitRequest, Decision } from "../src/pb/costd/v1/admission.js";

const TRACE_ID = "0af7651916cd43dd8448eb211c80319c";
const SPAN_ID = "b7ad6b7169203331";

let server: Server;
let client: Client;
let heard: Metadata | undefined;

before(async () => {
  const storage = new AsyncLocalStorage<Context>();
  context.setGlobalContextManager({
    active: () => storage.getStore() ?? ROOT_CONTEXT,
    with: (active, run, self, ...rest) => storage.run(active, () => run.call(self, ...rest)),
    bind: (_, target) => target,
    enable: () => context as never,
    disable: () => context as never,
  });
  server = new Server();
  const refuse = (_: unknown, done: sendUnaryData<never>) => done({ code: status.UNIMPLEMENTED });
  server.addService(AdmissionService, {
    admit: (call: ServerUnaryCall<AdmitRequest, Decision>, done: sendUnaryData<Decision>) => {
      heard = call.metadata;
      done(null, Decision.fromPartial({ verdict: 1, askId: call.request.askId }));
    },
    settle: refuse,
    void: refuse,
    extend: refuse,
    record: refuse,
    explain: refuse,
    attach: (call: { end(): void }) => call.end(),
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  client = new Client({ address: `127.0.0.1:${port}`, caller: "traced", allowances: false });
});

after(async () => {
  await client.close();
  server.forceShutdown();
});

test("a request without a span names its caller and no trace", async () => {
  await client.admit({ estimatedCostNusd: 1n });
  assert.deepEqual(heard?.get("costd-caller"), ["traced"]);
  assert.deepEqual(heard?.get("traceparent"), []);
});

test("a request inside a span carries its context", async () => {
  const span = trace.wrapSpanContext({
    traceId: TRACE_ID,
    spanId: SPAN_ID,
    traceFlags: TraceFlags.SAMPLED,
    traceState: createTraceState("vendor=1"),
  });
  await context.with(trace.setSpan(context.active(), span), () =>
    client.admit({ estimatedCostNusd: 1n }),
  );
  assert.deepEqual(heard?.get("traceparent"), [`00-${TRACE_ID}-${SPAN_ID}-01`]);
  assert.deepEqual(heard?.get("tracestate"), ["vendor=1"]);
});
