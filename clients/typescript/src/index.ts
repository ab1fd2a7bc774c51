/** Ask costd before each LLM call, and tell it afterwards what the call cost. */

export { Client } from "./client.js";
export {
  type Admitted,
  type Allowed,
  type Decision,
  type DecisionView,
  type Degraded,
  type Outcome,
  type Reason,
  type Refused,
  Settlement,
  type Source,
  type State,
  type Verdict,
} from "./decision.js";
export * from "./errors.js";
export type { FailMode } from "./fail-mode.js";
export type { Call } from "./guard.js";
export { newAskId } from "./ids.js";
export type { ClientOptions, More, Waiting } from "./options.js";
export type { Log } from "./outbox.js";
export type {
  Binding,
  Directives,
  Explanation,
  Extension,
  WouldPass,
} from "./pb/costd/v1/admission.js";
export type { Amounts, Ask, Kind, Used } from "./requests.js";
export type { Scope } from "./scope.js";
export type { Counts } from "./usage.js";
