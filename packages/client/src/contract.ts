// `harborforge-agents-client/contract`: the generated code of the contract, for calls: enums, messages and services. It runs
// everywhere, browsers too. The rules of requests are not part of it: the service checks them.

export * from "../../../gen/client/harborforge/agents/v1/agent_pb.ts";
export * from "../../../gen/client/harborforge/agents/v1/agent_service_pb.ts";
export * from "../../../gen/client/harborforge/agents/v1/error_reason_pb.ts";
export * from "../../../gen/client/harborforge/agents/v1/token_pb.ts";
export * from "../../../gen/client/harborforge/agents/v1/token_service_pb.ts";
export * from "../../../gen/client/harborforge/agents/v1/user_pb.ts";
export * from "../../../gen/client/harborforge/agents/v1/user_service_pb.ts";
export * from "../../../gen/client/harborforge/agents/v1/wake_pb.ts";
export * from "../../../gen/client/harborforge/agents/v1/wake_service_pb.ts";
