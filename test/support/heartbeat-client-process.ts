import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { createGrpcJsTransport } from "./grpc-js-transport.ts";
import { HeartbeatClient } from "./heartbeat-client.ts";

/**
 * A claw process to be killed: reports its agent busy, then prints `acknowledged` on standard output, and beats
 * until its standard input ends, so that no process outlives its test.
 *
 * node heartbeat-client-process.ts grpc-js|grpc|connect host:port agent_id
 */
const [, , kind = "", address = "", agentId = ""] = process.argv;
const baseUrl = `http://${address}`;
const transport = {
  "grpc-js": () => createGrpcJsTransport(address, 60_000),
  grpc: () => createGrpcTransport({ baseUrl }),
  connect: () => createConnectTransport({ baseUrl, httpVersion: "2" }),
}[kind];
if (transport === undefined) throw new Error(`unknown kind of client: ${kind}`);

process.stdin.on("end", () => process.exit()).resume();
const client = new HeartbeatClient(createClient(AgentService, transport()));
await client.say({ agentId, status: AgentStatus.BUSY });
process.stdout.write("acknowledged\n");
setInterval(() => client.send({ agentId, status: AgentStatus.BUSY }), 50);
