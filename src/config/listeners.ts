import { address, duration, either, wholeNumber } from "./setting.ts";

export const ADDRESS_SETTINGS = {
  grpcAddress: address({ description: "the address of the gRPC listener" }, "127.0.0.1:50051"),
  httpAddress: address(
    { description: "the address of the Connect listener, which serves Connect, gRPC-Web, gRPC and plain HTTP" },
    "127.0.0.1:8080",
  ),
};

export const LIMIT_SETTINGS = {
  maxConnections: wholeNumber(
    { description: "the most connections of both listeners together; more are closed at once" },
    50_000,
    1,
    1_000_000,
  ),
  connectionsPerSecond: wholeNumber(
    {
      description: "new connections per second from one address, with bursts of twice as many; more are closed at once",
    },
    500,
    1,
    1_000_000,
  ),
  requestsPerSecond: wholeNumber(
    {
      description: "calls per second of one caller, with bursts of twice as many; messages on streams do not count",
    },
    20_000,
    1,
    1_000_000,
  ),
  streamsPerCaller: wholeNumber({ description: "the most open streams of one caller" }, 100_000, 1, 1_000_000),
  reflection: either({ description: "whether both listeners serve gRPC server reflection" }, true, ["on", "off"]),
};

export const STOP_SETTINGS = {
  drainGrace: duration({ description: "how long a stop waits for calls and streams to end" }, "10s", "0s", "5m"),
};
