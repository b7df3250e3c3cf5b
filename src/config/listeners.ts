import { address, duration, either } from "./setting.ts";

export const ADDRESS_SETTINGS = {
  grpcAddress: address({ description: "the address of the gRPC listener" }, "127.0.0.1:50051"),
  httpAddress: address(
    { description: "the address of the Connect listener: Connect, gRPC-Web, gRPC and plain HTTP" },
    "127.0.0.1:8080",
  ),
};

export const REFLECTION_SETTINGS = {
  reflection: either({ description: "whether both listeners serve gRPC server reflection" }, true, ["on", "off"]),
};

export const COMPRESSION_SETTINGS = {
  compression: either(
    { description: "whether both listeners compress large responses of callers that accept gzip" },
    true,
    ["on", "off"],
  ),
};

export const STOP_SETTINGS = {
  drainDelay: duration(
    { description: "how long a stop serves on while health says not ready, before the drain begins" },
    "0s",
    "0s",
    "5m",
  ),
  drainGrace: duration({ description: "how long a stop waits for open calls and streams" }, "10s", "0s", "5m"),
};
