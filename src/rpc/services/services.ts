import type { ServiceImplSpec } from "@connectrpc/connect";
import { AgentService } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../../gen/harborforge/agents/v1/token_service_pb.ts";
import { UserService } from "../../../gen/harborforge/agents/v1/user_service_pb.ts";
import { WakeService } from "../../../gen/harborforge/agents/v1/wake_service_pb.ts";
import { createAgentService } from "../handlers/agent-service.ts";
import type { Backend } from "../handlers/backend.ts";
import { createTokenService } from "../handlers/token-service.ts";
import { createUserService } from "../handlers/user-service.ts";
import { createWakeService } from "../handlers/wake-service.ts";
import type { Pipeline } from "../pipeline/pipeline.ts";
import type { Health } from "./health.ts";
import { type StandardServicesOptions, standardServices } from "./standard-services.ts";

/** All services of both listeners. */
export function createServices(
  pipeline: Pipeline,
  health: Health,
  backend: Backend,
  options: StandardServicesOptions = {},
): ServiceImplSpec[] {
  return [
    pipeline.wrap(UserService, createUserService(backend)),
    pipeline.wrap(AgentService, createAgentService(backend)),
    pipeline.wrap(TokenService, createTokenService(backend)),
    pipeline.wrap(WakeService, createWakeService(backend)),
    ...standardServices(pipeline, health, [UserService, AgentService, TokenService, WakeService], options),
  ];
}
