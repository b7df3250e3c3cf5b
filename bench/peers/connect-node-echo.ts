// The same service on connect-node: decodes each heartbeat and responds to it, and does nothing else.
import { createServer } from "node:http2";
import { create } from "@bufbuild/protobuf";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { AgentService, HeartbeatResponseSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";

const pace = { nextHeartbeatIn: { seconds: 10n, nanos: 0 }, leaseTtl: { seconds: 30n, nanos: 0 } };

const server = createServer(
  connectNodeAdapter({
    routes: (router) => {
      router.service(AgentService, {
        async *heartbeat(requests) {
          for await (const { sequence } of requests) {
            yield create(HeartbeatResponseSchema, { acknowledgedSequence: sequence, ...pace });
          }
        },
      });
    },
  }),
);
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  if (typeof address === "object" && address !== null) console.log(`serving 127.0.0.1:${address.port}`);
});
