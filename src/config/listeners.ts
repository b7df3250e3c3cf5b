import { address, duration, either, wholeNumber } from "./setting.ts";

export const ADDRESS_SETTINGS = {
  grpcAddress: address({ description: "the address of the gRPC listener" }, "127.0.0.1:50051"),
  httpAddress: address(
    { description: "the address of the Connect listener: Connect, gRPC-Web, gRPC and plain HTTP" },
    "127.0.0.1:8080",
  ),
};

export const LIMIT_SETTINGS = {
  maxConnections: wholeNumber(
    { description: "maximum connections of both listeners together; further ones are closed at once" },
    50_000,
    1,
    1_000_000,
  ),
  connectionsPerSecond: wholeNumber(
    {
      description:
        "maximum new connections a second from one address, and twice as many at once; further ones are closed at once",
    },
    500,
    1,
    1_000_000,
  ),
  requestsPerSecond: wholeNumber(
    {
      description: "maximum calls a second of one caller, and twice as many at once; messages on streams do not count",
    },
    20_000,
    1,
    1_000_000,
  ),
  streamsPerCaller: wholeNumber({ description: "maximum open streams of one caller" }, 100_000, 1, 1_000_000),
  reflection: either({ description: "whether both listeners serve gRPC server reflection" }, true, ["on", "off"]),
};

export const STOP_SETTINGS = {
  drainGrace: duration({ description: "how long a stop waits for open calls and streams" }, "10s", "0s", "5m"),
};
