import type { DescService } from "@bufbuild/protobuf";
import type { ServiceImplSpec } from "@connectrpc/connect";
import { ServerReflection } from "../../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { Health as HealthService } from "../../../gen/health/v1/health_pb.ts";
import type { Pipeline } from "../pipeline/pipeline.ts";
import type { Health } from "./health.ts";
import { healthService } from "./health-service.ts";
import { reflectionServices } from "./reflection.ts";

export interface StandardServicesOptions {
  /** Whether anybody may ask which services, methods and messages there are. Default true. */
  readonly reflection?: boolean;
}

/**
 * Health and reflection, for both listeners, about `services` and themselves. They are admitted while the replica drains:
 * whoever asks then has to hear NOT_SERVING.
 */
export function standardServices(
  pipeline: Pipeline,
  health: Health,
  services: readonly DescService[],
  { reflection: reflects = true }: StandardServicesOptions = {},
): ServiceImplSpec[] {
  const all = [...services, HealthService, ...(reflects ? [ServerReflection, ServerReflectionAlpha] : [])];
  const names = all.map((service) => service.typeName);
  const options = { admission: false };
  const healthSpec = pipeline.wrap(HealthService, healthService(health, names), options);
  if (!reflects) return [healthSpec];
  const reflection = reflectionServices(all);
  return [
    healthSpec,
    pipeline.wrap(ServerReflection, reflection.v1, options),
    pipeline.wrap(ServerReflectionAlpha, reflection.v1alpha, options),
  ];
}
