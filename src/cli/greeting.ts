import type { Addresses } from "../server.ts";

/** What `serve` says on standard output once it serves. `data`: where the data is, for people. */
export function greeting({ grpc, http }: Addresses, data: string): string {
  const call = (method: string, message: object): string =>
    `  npx buf curl --protocol grpc --http2-prior-knowledge -d '${JSON.stringify(message)}' http://${grpc}/harborforge.agents.v1.${method}`;
  // With a request_id the first line may be repeated, after a restart, too.
  const user = { username: "ada", agentId: "ada-1", clawIdentifier: "claw-1", requestId: "try-ada" };
  return `gRPC  http://${grpc}
HTTP  http://${http}
Data  ${data}

Try, in another terminal:
${call("UserService/CreateUser", user)}
${call("AgentService/SendHeartbeat", { beats: [{ agentId: "ada-1", status: "AGENT_STATUS_BUSY" }] })}
${call("AgentService/WatchAgents", {})}
`;
}
