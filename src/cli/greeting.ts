import type { Addresses } from "../server.ts";

/**
 * The message of `serve` on standard output once it accepts calls. It suggests calls to try only without TLS and
 * credentials, because it does not know the operator's authorities and tokens.
 *
 * @param data the location of the data, for people
 */
export function greeting({ grpc, http }: Addresses, data: string, tls: boolean, credentials: boolean): string {
  const scheme = tls ? "https" : "http";
  const where = `gRPC  ${scheme}://${grpc}\nHTTP  ${scheme}://${http}\nData  ${data}\n`;
  if (credentials) {
    return `${where}\nCallers need a credential. To issue the first one: harborforge-agents tokens issue --role admin --principal <name>\n`;
  }
  if (tls) return where;
  const call = (method: string, message: object): string =>
    `  npx buf curl --protocol grpc -d '${JSON.stringify(message)}' http://${grpc}/harborforge.agents.v1.${method}`;
  // With a request_id the first line may be repeated, after a restart, too.
  const user = { username: "ada", agentId: "ada-1", clawIdentifier: "claw-1", requestId: "try-ada" };
  return `${where}
Try, in another terminal:
${call("UserService/CreateUser", user)}
${call("AgentService/SendHeartbeat", { beats: [{ agentId: "ada-1", status: "AGENT_STATUS_BUSY" }] })}
${call("AgentService/WatchAgents", {})}
`;
}
