import type pg from "pg";
import type { Metrics } from "../telemetry/metrics/metrics.ts";
import type { Tracing } from "../telemetry/tracing/tracing.ts";
import { failureCode } from "./failures.ts";
import { statementName } from "./queries.ts";

/** Observes a statement from its name on. The function that it returns is called with the statement's error, if it fails. */
export type StatementObserver = (name: string) => (error: unknown) => void;

/** Measures the duration of each statement, and makes a span of each that belongs to a traced call. */
export function createStatementObserver(metrics: Metrics, tracing: Tracing | undefined): StatementObserver {
  return (statement) => {
    const sentAt = performance.now();
    const endSpan = tracing?.statement(statement);
    return (error) => {
      const seconds = (performance.now() - sentAt) / 1_000;
      metrics.histogram("harborforge_database_statement_seconds", { statement }).observe(seconds);
      endSpan?.(error === undefined || error === null ? undefined : failureCode(error));
    };
  };
}

/** Observes the statements of a client, of node-postgres and of Knex alike: both call its method `query`. */
export function observeStatements(client: pg.Client, observe: StatementObserver): void {
  const query = client.query;
  const timed = (...given: readonly unknown[]): unknown => {
    const ended = observe(statementName(given[0]));
    const callback = given.at(-1);
    if (typeof callback !== "function") {
      const answer: unknown = Reflect.apply(query, client, given);
      if (answer instanceof Promise) answer.then(() => ended(undefined), ended);
      return answer;
    }
    const answered = (...results: readonly unknown[]): void => {
      ended(results[0]);
      Reflect.apply(callback, undefined, results);
    };
    return Reflect.apply(query, client, [...given.slice(0, -1), answered]);
  };
  Object.assign(client, { query: timed });
}
