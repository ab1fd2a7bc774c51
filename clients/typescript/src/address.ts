/** Where the daemon is when nobody says. */

import { statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Where a daemon that root started has its sockets. */
const SYSTEM = "/run/costd";

/**
 * Read `COSTD_ADDRESS` (a gRPC target), then `COSTD_SOCKET` (a path); else name the socket of this
 * user's own daemon if there is one, else that of the host's.
 *
 * Ensures: a directory that somebody else made for this user is not believed.
 */
export function defaultAddress(environment: NodeJS.ProcessEnv = process.env): string {
  if (environment.COSTD_ADDRESS) return environment.COSTD_ADDRESS;
  if (environment.COSTD_SOCKET) return `unix:${environment.COSTD_SOCKET}`;
  const folder = ownFolder(environment);
  if (folder !== undefined && isOwnSocket(folder)) return `unix:${join(folder, "costd.sock")}`;
  return `unix:${SYSTEM}/costd.sock`;
}

/** Name where `costd serve` puts the sockets of a user who is not root. */
function ownFolder(environment: NodeJS.ProcessEnv): string | undefined {
  const user = process.geteuid?.();
  if (user === undefined || user === 0) return undefined;
  const runtime = environment.XDG_RUNTIME_DIR;
  return runtime ? join(runtime, "costd") : join(tmpdir(), `costd-${user}`);
}

function isOwnSocket(folder: string): boolean {
  const mine = statSync(folder, { throwIfNoEntry: false })?.uid === process.geteuid?.();
  return (
    mine && statSync(join(folder, "costd.sock"), { throwIfNoEntry: false })?.isSocket() === true
  );
}
