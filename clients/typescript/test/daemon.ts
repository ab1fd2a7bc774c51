/** A real daemon in a process of its own, and an operator's view of its books. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { credentials, type Client as GrpcClient, loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const ROOT = join(import.meta.dirname, "../../../..");
const COSTD = process.env.COSTD_TEST_PROGRAM ?? join(ROOT, ".venv/bin/costd");
const ANSWER_MS = 30_000;

const POLICY = `\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes: {draft: {}}
default_task_class: draft
budgets:
  - {id: all, window: total, limit: $100}
  - {id: teams, per: team, window: day, limit: $100}
expiry: {ttl: 1h}
allowance: {for: 2s}
`;

/** What the books say of one counter. */
export interface Books {
  settled: bigint;
  reserved: bigint;
  unadmitted: bigint;
  late: bigint;
  overrun: bigint;
}

type Row = Record<string, unknown>;
type Rpc = (request: object, done: (error: Error | null, reply: Row) => void) => void;

/** Starts, kills and restarts one daemon in a directory of its own. */
export class Daemon {
  readonly directory = mkdtempSync(join(tmpdir(), "costd-ts-"));
  readonly address = `unix:${join(this.directory, "s/costd.sock")}`;
  listenAddress = "";
  private readonly log: string[] = [];
  private process: ChildProcess | undefined;
  private readonly control: GrpcClient & Record<string, Rpc>;

  constructor(
    change: (policy: string) => string = (policy) => policy,
    private readonly flags: readonly string[] = [],
  ) {
    writeFileSync(join(this.directory, "policy.yaml"), change(POLICY));
    const proto = loadSync("costd/v1/control.proto", {
      includeDirs: [join(ROOT, "proto")],
      keepCase: true,
      longs: String,
      enums: String,
      defaults: true,
    });
    const { costd } = loadPackageDefinition(proto) as unknown as {
      costd: { v1: { Control: new (...args: unknown[]) => GrpcClient & Record<string, Rpc> } };
    };
    const socket = `unix:${join(this.directory, "s/control.sock")}`;
    this.control = new costd.v1.Control(socket, credentials.createInsecure(), {
      "grpc.max_reconnect_backoff_ms": 100,
      "grpc.initial_reconnect_backoff_ms": 50,
    });
  }

  async start(): Promise<this> {
    const where = (name: string) => join(this.directory, name);
    const child = spawn(
      COSTD,
      [
        ...["serve", "--policy", where("policy.yaml"), "--data", where("data")],
        ...["--socket", where("s/costd.sock"), "--control-socket", where("s/control.sock")],
        ...["--metrics-listen", "off", "--claims", "*", "--name", "test", ...this.flags],
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    this.process = child;
    let serves: () => void = () => {};
    const serving = new Promise<"serving">((resolve) => {
      serves = () => resolve("serving");
    });
    createInterface({ input: child.stderr as NodeJS.ReadableStream }).on("line", (line) => {
      this.log.push(line);
      if (!line.includes('"serving"')) return;
      this.listenAddress = String((JSON.parse(line) as Row).listen ?? "");
      serves();
    });
    if ((await Promise.race([serving, once(child, "exit")])) !== "serving") {
      throw new Error(`the daemon did not start:\n${this.log.join("\n")}`);
    }
    return this;
  }

  /** End it the way a lost process ends. */
  async kill(): Promise<void> {
    await this.end("SIGKILL");
  }

  signal(name: NodeJS.Signals): void {
    this.process?.kill(name);
  }

  async close(): Promise<void> {
    if (this.process?.exitCode === null && this.process.signalCode === null)
      await this.end("SIGKILL");
    this.control.close();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Ask the control service. */
  operate(method: string, request: object = {}): Promise<Row> {
    return new Promise((resolve, reject) => {
      const rpc = this.control[method] as Rpc;
      const deadline = { deadline: Date.now() + ANSWER_MS };
      (rpc as (...args: unknown[]) => void).call(
        ...[this.control, request, deadline],
        (error: Error | null, reply: Row) => (error ? reject(error) : resolve(reply)),
      );
    });
  }

  /** Run the operator's program, and wait for it without a turn of the event loop. */
  costctl(...words: string[]): void {
    const address = `unix:${join(this.directory, "s/control.sock")}`;
    const env = { ...process.env, COSTD_CONTROL_ADDRESS: address };
    execFileSync(COSTD.replace(/costd$/, "costctl"), words, { env, stdio: "pipe" });
  }

  /** What the books say of a budget with one counter. */
  async books(budget = "all"): Promise<Books> {
    const { budgets } = (await this.operate("ListBudgets", { budget })) as { budgets: Row[] };
    const row = budgets[0] ?? {};
    const of = (name: string) => BigInt(String(row[name] ?? 0));
    return {
      settled: of("settled"),
      reserved: of("reserved"),
      unadmitted: of("unadmitted"),
      late: of("late"),
      overrun: of("overrun"),
    };
  }

  /** Usage events of calls that cost something, newest first. */
  async events(): Promise<Row[]> {
    const listed = await this.operate("ListUsage", { limit_count: 10_000 });
    return (listed as { events: Row[] }).events.filter((one) => one.cost_nusd !== "0");
  }

  private async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.process;
    if (child === undefined) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  }
}

/** Wait until something is so. */
export async function until<T>(
  condition: () => T | Promise<T>,
  what: string,
): Promise<NonNullable<T>> {
  const endMs = performance.now() + ANSWER_MS;
  for (;;) {
    const found = await condition();
    if (found) return found as NonNullable<T>;
    if (performance.now() > endMs) throw new Error(`did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
