import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import type { ServerReflectionResponse } from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import type { ServerReflectionResponse as ServerReflectionResponseAlpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { HealthCheckResponse_ServingStatus as ServingStatus } from "../../gen/health/v1/health_pb.ts";
import { newAgent, present } from "../support/contract-steps.ts";
import { HeartbeatStream, StreamReader, Watch } from "../support/contract-streams.ts";
import { openClients, TESTED_PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { failure } from "../support/rpc-clients.ts";
import { startService, useService } from "../support/service.ts";

const service = useService();

const SERVICES = [
  "harborforge.agents.v1.AgentService",
  "harborforge.agents.v1.TokenService",
  "harborforge.agents.v1.UserService",
  "harborforge.agents.v1.WakeService",
  "grpc.health.v1.Health",
  "grpc.reflection.v1.ServerReflection",
  "grpc.reflection.v1alpha.ServerReflection",
];

describe.concurrent.each(TESTED_PROTOCOLS)("health: $name", (protocol) => {
  const { health } = useClients(protocol, service);

  test.each(["", ...SERVICES])("serves: '%s'", async (name) => {
    expect((await health.check({ service: name })).status).toBe(ServingStatus.SERVING);
  });

  test("lists all services", async () => {
    const { statuses } = await health.list({});
    expect(Object.keys(statuses).sort()).toEqual(["", ...SERVICES].sort());
  });

  test("rejects unknown services", async () => {
    const failed = await failure(health.check({ service: "harborforge.agents.v1.NoService" }));
    expect(failed).toMatchObject({ code: Code.NotFound, reason: "NOT_FOUND", domain: "harborforge.agents" });
  });

  test.each([
    ["", ServingStatus.SERVING],
    ["harborforge.agents.v1.AgentService", ServingStatus.SERVING],
    ["nobody's", ServingStatus.SERVICE_UNKNOWN],
  ])("watches '%s'", async (name, status) => {
    await using watch = new StreamReader((signal) => health.watch({ service: name }, { signal }));
    await watch.until("the first state", () => watch.messages.length > 0);
    expect(watch.messages).toMatchObject([{ status }]);
  });
});

describe.concurrent.each(TESTED_PROTOCOLS.filter(({ bidi }) => bidi))("reflection: $name", (protocol) => {
  const { reflection, reflectionAlpha } = useClients(protocol, service);

  describe.each(["v1", "v1alpha"])("%s", (version) => {
    type Question = { case: "listServices" | "fileContainingSymbol" | "fileByFilename"; value: string };
    const ask = async (...questions: Question[]) => {
      const requests = async function* () {
        for (const messageRequest of questions) yield { messageRequest };
      };
      const answers: (ServerReflectionResponse | ServerReflectionResponseAlpha)["messageResponse"][] = [];
      const stream =
        version === "v1"
          ? reflection.serverReflectionInfo(requests())
          : reflectionAlpha.serverReflectionInfo(requests());
      for await (const { messageResponse } of stream) answers.push(messageResponse);
      return answers;
    };

    test("lists the services", async () => {
      const [answer] = await ask({ case: "listServices", value: "" });
      if (answer?.case !== "listServicesResponse") throw new Error(`answered ${answer?.case}`);
      expect(answer.value.service.map(({ name }) => name).sort()).toEqual(SERVICES.toSorted());
    });

    test.each([
      ["harborforge.agents.v1.AgentService", "harborforge/agents/v1/agent_service.proto"],
      ["harborforge.agents.v1.UserService.CreateUser", "harborforge/agents/v1/user_service.proto"],
      ["harborforge.agents.v1.ErrorReason", "harborforge/agents/v1/error_reason.proto"],
      ["google.rpc.ErrorInfo", "google/rpc/error_details.proto"],
    ])("finds the file of %s", async (symbol, file) => {
      const answers = await ask(
        { case: "fileContainingSymbol", value: symbol },
        { case: "fileByFilename", value: file },
      );
      expect(answers).toHaveLength(2);
      for (const answer of answers) {
        if (answer?.case !== "fileDescriptorResponse") throw new Error(`answered ${answer?.case}`);
        const files = answer.value.fileDescriptorProto.map(
          (bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name,
        );
        expect(files).toContain(file);
      }
    });

    test("returns errors for unknown names, and continues", async () => {
      const answers = await ask(
        { case: "fileContainingSymbol", value: "harborforge.agents.v1.Nothing" },
        { case: "listServices", value: "" },
      );
      expect(answers).toMatchObject([
        { case: "errorResponse", value: { errorCode: Code.NotFound } },
        { case: "listServicesResponse" },
      ]);
    });
  });
});

test("a stopping replica reports it through every protocol, and ends open streams", async () => {
  await using undo = new AsyncDisposableStack();
  const stopping = undo.use(await startService());
  const everybody = TESTED_PROTOCOLS.map((protocol) => ({
    protocol,
    clients: undo.use(openClients(protocol, stopping.addresses)),
  }));
  const [first] = everybody;
  const { agentId } = await newAgent(present(first).clients);
  const open = everybody.map(({ protocol, clients }) => ({
    ...protocol,
    watch: undo.use(new Watch(clients, {})),
    health: undo.use(new StreamReader((signal) => clients.health.watch({}, { signal }))),
    heartbeat: protocol.bidi ? undo.use(new HeartbeatStream(clients)) : undefined,
  }));
  await Promise.all(
    open.map(async ({ watch, health, heartbeat }) => {
      await watch.untilComplete();
      await health.until("the first state", () => health.messages.length > 0);
      // One stream after the other takes the agent over: the test only needs them open.
      await heartbeat?.beat({ beats: [{ agentId }] });
    }),
  );

  const stopped = stopping.server.stop(3_000);
  await Promise.all(
    open.map(async ({ watch, health, heartbeat }) => {
      await health.until("NOT_SERVING", () => health.messages.at(-1)?.status === ServingStatus.NOT_SERVING);
      const draining = { code: Code.Unavailable, reason: "DRAINING", domain: "harborforge.agents" };
      const ended = await failure(watch.end());
      expect(ended).toMatchObject(draining);
      expect(ended.retryMs).toBeGreaterThanOrEqual(0);
      if (heartbeat !== undefined) {
        const told = () => heartbeat.messages.some((message) => message.draining?.reconnectWithin !== undefined);
        await heartbeat.until("it is told to go elsewhere", told);
        heartbeat.input.end();
        await heartbeat.end();
      }
    }),
  );
  await stopped;
});
