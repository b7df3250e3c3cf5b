import type pg from "pg";
import type { Metrics } from "../telemetry/metrics/metrics.ts";
import { statementName } from "./queries.ts";

/** Observes the duration of each statement, in seconds, under its name. */
export type StatementTimer = (name: string, seconds: number) => void;

export function createStatementTimer(metrics: Metrics): StatementTimer {
  return (statement, seconds) =>
    metrics.histogram("harborforge_database_statement_seconds", { statement }).observe(seconds);
}

/** Observes the statements of a client, of node-postgres and of Knex alike: both call its method `query`. */
export function timeStatements(client: pg.Client, observe: StatementTimer): void {
  const query = client.query;
  const timed = (...given: readonly unknown[]): unknown => {
    const sentAt = performance.now();
    const ended = (): void => observe(statementName(given[0]), (performance.now() - sentAt) / 1_000);
    const callback = given.at(-1);
    if (typeof callback !== "function") {
      const answer: unknown = Reflect.apply(query, client, given);
      if (answer instanceof Promise) answer.then(ended, ended);
      return answer;
    }
    const answered = (...results: readonly unknown[]): void => {
      ended();
      Reflect.apply(callback, undefined, results);
    };
    return Reflect.apply(query, client, [...given.slice(0, -1), answered]);
  };
  Object.assign(client, { query: timed });
}
