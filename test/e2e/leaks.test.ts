import { expect, test } from "vitest";
import { startFuzzedService } from "../fuzz/fuzzed-service.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { envelope, http2Call, http2Connect } from "../support/rpc-raw.ts";

test("disabled reflection is not served, and health is", async () => {
  await using database = await createTestDatabase();
  await using service = await startFuzzedService(database.url, { HARBORFORGE_REFLECTION: "off" });
  for (const address of [service.listeners.grpc, service.listeners.http]) {
    const session = await http2Connect(address);
    const ask = async (path: string): Promise<string | null> => {
      const { response, stream } = http2Call(session, path, { "content-type": "application/grpc" });
      stream.end(envelope(""));
      const { headers, trailers } = await response;
      return trailers.get("grpc-status") ?? headers.get("grpc-status");
    };
    for (const version of ["v1", "v1alpha"]) {
      expect(await ask(`/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`)).toBe("12");
    }
    expect(await ask("/grpc.health.v1.Health/Check")).toBe("0");
    session.destroy();
  }
});
