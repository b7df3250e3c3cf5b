import type { Column } from "../terminal/table.ts";
import { timeText } from "../terminal/times.ts";
import type { Fact } from "./output.ts";
import type { UserRecord } from "./records.ts";

/**
 * The columns of a list of users.
 *
 * @param nowMs the present, in milliseconds since 1970
 */
export function userColumns(nowMs: number): readonly Column<UserRecord>[] {
  return [
    { heading: "ID", cell: ({ id }) => String(id), align: "right" },
    { heading: "USERNAME", cell: ({ username }) => username },
    { heading: "NAME", cell: ({ displayName }) => displayName },
    { heading: "AGENT", cell: ({ agentId }) => agentId ?? "" },
    { heading: "EMAIL", cell: ({ email }) => email ?? "", optional: true },
    { heading: "CREATED", cell: ({ createdAt }) => timeText(createdAt, nowMs), optional: true },
  ];
}

/** All facts of a user. */
export function userFacts(user: UserRecord): readonly Fact[] {
  const { id, username, displayName, email, agentId, createdAt } = user;
  return [
    ["id", String(id)],
    ["username", username],
    ["name", displayName],
    ["email", email ?? ""],
    ["created", timeText(createdAt, Date.now())],
    ["agent", agentId ?? ""],
  ];
}
