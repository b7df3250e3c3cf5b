import type { DescService } from "@bufbuild/protobuf";
import type { ServiceImplSpec } from "@connectrpc/connect";
import { ServerReflection } from "../../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { Health as HealthService } from "../../../gen/health/v1/health_pb.ts";
import type { Health } from "../health.ts";
import type { Pipeline } from "../pipeline.ts";
import { healthService } from "./health-service.ts";
import { reflectionServices } from "./reflection.ts";

/**
 * Health and reflection, for both doors, about `services` and themselves. They are admitted while the replica drains:
 * whoever asks then has to hear NOT_SERVING.
 */
export function standardServices(
  pipeline: Pipeline,
  health: Health,
  services: readonly DescService[],
): ServiceImplSpec[] {
  const all = [...services, HealthService, ServerReflection, ServerReflectionAlpha];
  const names = all.map((service) => service.typeName);
  const reflection = reflectionServices(all);
  const options = { admission: false };
  return [
    pipeline.wrap(HealthService, healthService(health, names), options),
    pipeline.wrap(ServerReflection, reflection.v1, options),
    pipeline.wrap(ServerReflectionAlpha, reflection.v1alpha, options),
  ];
}
