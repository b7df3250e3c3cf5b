import { wholeNumber } from "./setting.ts";

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
};
