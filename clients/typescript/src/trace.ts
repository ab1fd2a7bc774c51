/** The trace a request belongs to, where the program traces with OpenTelemetry. */

import { createRequire } from "node:module";
import type { Metadata } from "@grpc/grpc-js";
import type * as Otel from "@opentelemetry/api";

/** The program's own copy of the package, looked for once; the peer dependency is optional. */
const otel: typeof Otel | undefined = find();

function find(): typeof Otel | undefined {
  try {
    return createRequire(import.meta.url)("@opentelemetry/api") as typeof Otel;
  } catch {
    return undefined;
  }
}

/** Add the active span's context, as W3C Trace Context writes it. */
export function addTrace(metadata: Metadata): void {
  const context = otel?.trace.getActiveSpan()?.spanContext();
  if (otel === undefined || context === undefined || !otel.isSpanContextValid(context)) return;
  const flags = context.traceFlags.toString(16).padStart(2, "0");
  metadata.set("traceparent", `00-${context.traceId}-${context.spanId}-${flags}`);
  const state = context.traceState?.serialize();
  if (state) metadata.set("tracestate", state);
}
