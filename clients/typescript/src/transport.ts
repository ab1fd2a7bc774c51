/** The channel to the daemon. */

import {
  type ClientDuplexStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { RpcFailed } from "./errors.js";
import {
  AdmissionClient,
  type AdmitRequest,
  type ClientMessage,
  type DaemonMessage,
  type Decision,
  type Explanation,
  type ExtendRequest,
  type Extension,
  type RecordRequest,
  type Settlement,
  type SettleRequest,
  type VoidRequest,
} from "./pb/costd/v1/admission.js";
import { addTrace } from "./trace.js";

/** Requests and their replies, by method. */
export interface Methods {
  admit: [AdmitRequest, Decision];
  settle: [SettleRequest, Settlement];
  void: [VoidRequest, Settlement];
  extend: [ExtendRequest, Extension];
  record: [RecordRequest, Settlement];
  explain: [AdmitRequest, Explanation];
}

export type Method = keyof Methods;
export type Stream = ClientDuplexStream<ClientMessage, DaemonMessage>;

const CHANNEL_OPTIONS = {
  // A daemon that restarts is found again in a fraction of a second, not after gRPC's default of
  // one to 120 seconds.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 200,
  // Repeating is the client's own affair: it knows the deadline and the fail mode.
  "grpc.enable_retries": 0,
  // A proxy has no business between an agent and the daemon on its own host.
  "grpc.enable_http_proxy": 0,
  // Clients of several daemons, or that come and go, share no connection.
  "grpc.use_local_subchannel_pool": 1,
};

type Unary = (
  request: unknown,
  metadata: Metadata,
  options: { deadline: number },
  done: (error: ServiceError | null, reply: unknown) => void,
) => { cancel(): void };

/** One channel; it connects at the first request, and again after a loss. */
export class Transport {
  private readonly client: AdmissionClient;

  constructor(
    address: string,
    private readonly caller: string,
  ) {
    if (!/^[\x20-\x7e]+$/.test(caller)) {
      throw new TypeError(`caller is ${JSON.stringify(caller)}; it must be printable ASCII`);
    }
    this.client = new AdmissionClient(address, credentials.createInsecure(), CHANNEL_OPTIONS);
  }

  /**
   * Make one call.
   *
   * Errors: RpcFailed; the signal's reason once that is aborted.
   */
  send<M extends Method>(
    method: M,
    request: Methods[M][0],
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<Methods[M][1]> {
    return new Promise((resolve, reject) => {
      const invoke = this.client[method].bind(this.client) as unknown as Unary;
      const deadline = Date.now() + Math.max(timeoutMs, 1);
      const call = invoke(request, this.metadata(), { deadline }, (error, reply) => {
        signal?.removeEventListener("abort", cancel);
        if (error === null) resolve(reply as Methods[M][1]);
        else if (signal?.aborted) reject(signal.reason);
        else reject(new RpcFailed(error.code ?? status.UNKNOWN, error.details ?? error.message));
      });
      const cancel = () => call.cancel();
      signal?.addEventListener("abort", cancel, { once: true });
      if (signal?.aborted) cancel();
    });
  }

  /** Open the stream of allowances. */
  attach(): Stream {
    return this.client.attach(this.metadata());
  }

  close(): void {
    this.client.close();
  }

  private metadata(): Metadata {
    const metadata = new Metadata();
    metadata.set("costd-caller", this.caller);
    addTrace(metadata);
    return metadata;
  }
}
