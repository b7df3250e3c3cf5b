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
  /** Whether clients may list services, methods and messages. Default true. */
  readonly reflection?: boolean;
}

/**
 * Health and reflection, for both listeners, of `services` and themselves. They serve calls while the replica drains: a load
 * balancer has to get NOT_SERVING then.
 */
export function standardServices(
  pipeline: Pipeline,
  health: Health,
  services: readonly DescService[],
  { reflection: hasReflection = true }: StandardServicesOptions = {},
): ServiceImplSpec[] {
  const all = [...services, HealthService, ...(hasReflection ? [ServerReflection, ServerReflectionAlpha] : [])];
  const names = all.map((service) => service.typeName);
  const options = { admission: false };
  const healthSpec = pipeline.wrap(HealthService, healthService(health, names), options);
  if (!hasReflection) return [healthSpec];
  const reflection = reflectionServices(all);
  return [
    healthSpec,
    pipeline.wrap(ServerReflection, reflection.v1, options),
    pipeline.wrap(ServerReflectionAlpha, reflection.v1alpha, options),
  ];
}
