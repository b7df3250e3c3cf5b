import { fileURLToPath } from "node:url";
import { create, createFileRegistry, fromBinary, getOption, toBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { field as fieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type ServerReflectionRequest,
  ServerReflectionRequestSchema,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import { execFile } from "../support/owned-process.ts";
import { grpcClient } from "../support/rpc-clients.ts";
import { type RunningListeners, startListeners } from "../support/rpc-listeners.ts";
import { http1 } from "../support/rpc-raw.ts";

let listeners: RunningListeners;

beforeAll(async () => {
  listeners = await startListeners();
});

afterAll(async () => {
  await listeners[Symbol.asyncDispose]();
});

const identity = (bytes: Buffer): Buffer => bytes;

/** Requests by a bare gRPC client, which knows no descriptors. The versions differ only in their package. */
function ask(
  address: string,
  version: string,
  ...questions: ServerReflectionRequest["messageRequest"][]
): Promise<ServerReflectionResponse["messageResponse"][]> {
  const client = grpcClient(address);
  const call = client.makeBidiStreamRequest<Buffer, Buffer>(
    `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
    identity,
    identity,
  );
  return new Promise<ServerReflectionResponse["messageResponse"][]>((resolve, reject) => {
    const answers: ServerReflectionResponse["messageResponse"][] = [];
    call.on("data", (bytes: Buffer) => answers.push(fromBinary(ServerReflectionResponseSchema, bytes).messageResponse));
    call.on("error", reject);
    call.on("end", () => resolve(answers));
    for (const messageRequest of questions) {
      const request = create(ServerReflectionRequestSchema, { host: "here", messageRequest });
      call.write(Buffer.from(toBinary(ServerReflectionRequestSchema, request)));
    }
    call.end();
  }).finally(() => client.close());
}

function fileNames(answer: ServerReflectionResponse["messageResponse"] | undefined): string[] {
  if (answer?.case !== "fileDescriptorResponse") throw new Error(`no files but ${answer?.case}`);
  return answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name);
}

describe.each([
  ["gRPC listener", "v1", () => listeners.grpcAddress],
  ["gRPC listener", "v1alpha", () => listeners.grpcAddress],
  ["Connect listener", "v1", () => listeners.connectAddress],
  ["Connect listener", "v1alpha", () => listeners.connectAddress],
] as const)("reflection at the %s, %s", (_listener, version, address) => {
  test("lists all services", async () => {
    const [answer] = await ask(address(), version, { case: "listServices", value: "*" });
    expect(answer?.value).toMatchObject({
      service: [
        { name: "grpc.health.v1.Health" },
        { name: "grpc.reflection.v1.ServerReflection" },
        { name: "grpc.reflection.v1alpha.ServerReflection" },
        { name: "harborforge.agents.v1.AgentService" },
        { name: "harborforge.agents.v1.UserService" },
      ],
    });
  });

  test.each([
    "harborforge.agents.v1.AgentService",
    "harborforge.agents.v1.AgentService.Heartbeat",
    "harborforge.agents.v1.AgentBeat",
    "harborforge.agents.v1.AgentBeat.agent_id",
    "harborforge.agents.v1.GetAgentRequest.key",
  ])("finds the file of %s with all its imports", async (symbol) => {
    const [answer] = await ask(address(), version, { case: "fileContainingSymbol", value: symbol });
    const names = fileNames(answer);
    expect(names[0]).toBe("harborforge/agents/v1/agent_service.proto");
    expect(names).toEqual(
      expect.arrayContaining(["harborforge/agents/v1/agent.proto", "google/protobuf/timestamp.proto"]),
    );
  });

  test.each([
    ["harborforge.agents.v1.AGENT_STATUS_IDLE", "harborforge/agents/v1/agent.proto"],
    ["google.rpc.ErrorInfo", "google/rpc/error_details.proto"],
    ["google.rpc.BadRequest.FieldViolation", "google/rpc/error_details.proto"],
    ["google.rpc.RetryInfo", "google/rpc/error_details.proto"],
    ["google.protobuf.Any", "google/protobuf/any.proto"],
  ])("finds %s", async (symbol, file) => {
    expect(fileNames((await ask(address(), version, { case: "fileContainingSymbol", value: symbol }))[0])[0]).toBe(
      file,
    );
  });

  test("includes the rules of requests, and their definitions", async () => {
    const [answer] = await ask(address(), version, {
      case: "fileByFilename",
      value: "harborforge/agents/v1/user_service.proto",
    });
    if (answer?.case !== "fileDescriptorResponse") throw new Error("no files");
    const told = answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
    // Clients compile from the response alone, imports first.
    const file = new Set<FileDescriptorProto>();
    const add = (name: string): void => {
      const found = told.find((one) => one.name === name);
      if (found === undefined) throw new Error(`${name} is imported and was not told`);
      found.dependency.forEach(add);
      file.add(found);
    };
    add("harborforge/agents/v1/user_service.proto");
    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: [...file] }));
    expect(registry.getExtension("buf.validate.field")?.number).toBe(1159);
    const username = registry.getMessage("harborforge.agents.v1.CreateUserRequest")?.field.username;
    if (username === undefined) throw new Error("no field");
    expect(getOption(username, fieldRules).type).toMatchObject({ case: "string", value: { minLen: 1n, maxLen: 128n } });
  });

  test("answers every kind of request on one stream, in order", async () => {
    const answers = await ask(
      address(),
      version,
      { case: "fileByFilename", value: "google/rpc/error_details.proto" },
      { case: "fileByFilename", value: "no/such.proto" },
      { case: "fileContainingSymbol", value: "no.Such" },
      {
        case: "fileContainingExtension",
        value: create(ServerReflectionRequestSchema, {
          messageRequest: {
            case: "fileContainingExtension",
            value: { containingType: "google.protobuf.MethodOptions", extensionNumber: 1 },
          },
        }).messageRequest.value,
      } as ServerReflectionRequest["messageRequest"],
      { case: "allExtensionNumbersOfType", value: "harborforge.agents.v1.Agent" },
      { case: "allExtensionNumbersOfType", value: "no.Such" },
      { case: undefined },
    );
    expect(answers.map((answer) => answer.case)).toEqual([
      "fileDescriptorResponse",
      "errorResponse",
      "errorResponse",
      "errorResponse",
      "allExtensionNumbersResponse",
      "errorResponse",
      "errorResponse",
    ]);
    expect(answers[1]?.value).toMatchObject({ errorCode: 5 });
    expect(answers[6]?.value).toMatchObject({ errorCode: 3 });
  });
});

interface Curled {
  readonly out: string;
  readonly failed: boolean;
}

const BUF = fileURLToPath(new URL("../../node_modules/.bin/buf", import.meta.url));

function bufCurl(...args: string[]): Promise<Curled> {
  return new Promise((resolve) => {
    execFile(BUF, ["curl", ...args], { timeout: 20_000 }, (error, stdout, stderr) => {
      resolve({ out: `${stdout}${stderr}`, failed: error !== null });
    });
  });
}

describe("buf curl", () => {
  const url = (address: string, method: string): string =>
    `http://${address}/harborforge.agents.v1.AgentService/${method}`;
  const PROTOCOLS = [
    ["grpc", () => listeners.grpcAddress],
    ["grpc", () => listeners.connectAddress],
    ["grpcweb", () => listeners.connectAddress],
    ["connect", () => listeners.connectAddress],
  ] as const;

  test.each(PROTOCOLS)("calls by reflection with --protocol %s", async (protocol, address) => {
    const base = ["--http2-prior-knowledge", "--protocol", protocol];
    const unary = await bufCurl(...base, "-d", '{"agentId":"scribe"}', url(address(), "GetAgent"));
    expect(unary).toEqual({ failed: false, out: expect.stringContaining('"AGENT_STATUS_IDLE"') });
    const refused = await bufCurl(...base, "-d", '{"agentId":"missing"}', url(address(), "GetAgent"));
    expect(refused).toEqual({ failed: true, out: expect.stringMatching(/"not_found".*google\.rpc\.ErrorInfo/s) });
    const beats = await bufCurl(...base, "-d", '{"sequence":"1"}{"sequence":"2"}', url(address(), "Heartbeat"));
    expect(beats).toEqual({ failed: false, out: expect.stringContaining('"acknowledgedSequence": "2"') });
  });

  test("calls over HTTP/1.1 with a schema, and gets an error that names HTTP/2 where it is needed", async () => {
    const schema = ["--schema", fileURLToPath(new URL("../../proto", import.meta.url))];
    const unary = await bufCurl(...schema, "-d", '{"agentId":"scribe"}', url(listeners.connectAddress, "GetAgent"));
    expect(unary).toEqual({ failed: false, out: expect.stringContaining('"AGENT_STATUS_IDLE"') });
    const response = await http1(
      listeners.connectAddress,
      "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
      {
        headers: { "content-type": "application/connect+proto" },
        body: "",
      },
    );
    expect(response.body.toString()).toContain("HTTP2_REQUIRED");
  });
});
