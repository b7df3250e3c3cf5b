import { address, type Definition, duration, either } from "./setting.ts";

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

/** Origins as browsers send them: in lower case, without the default port of the scheme. */
function parseOrigins(given: string): readonly string[] | undefined {
  const origins = given.split(",").map((text) => originOf(text.trim()));
  const known = origins.filter((origin) => origin !== undefined);
  return known.length === origins.length ? [...new Set(known)] : undefined;
}

/** Undefined for all that is no origin of a page on the web: `null`, wildcards, paths, also an empty one. */
function originOf(text: string): string | undefined {
  if (!/^https?:\/\/[^/\\?#@*%\s]+$/i.test(text) || !URL.canParse(text)) return undefined;
  return new URL(text).origin;
}

const allowedOrigins: Definition<readonly string[] | undefined> = {
  placeholder: "<list>",
  description: "the origins whose pages may call the Connect listener in browsers (CORS)",
  defaultText: "none",
  fallback: undefined,
  allowed:
    "a list of origins, separated by commas, such as https://app.example or http://localhost:5173: " +
    "scheme, host and port, without a path, a slash at the end, wildcards and null",
  parse: parseOrigins,
};

export const ORIGIN_SETTINGS = { allowedOrigins };

export const STOP_SETTINGS = {
  drainDelay: duration(
    { description: "how long a stop serves on while health says not ready, before the drain begins" },
    "0s",
    "0s",
    "5m",
  ),
  drainGrace: duration({ description: "how long a stop waits for open calls and streams" }, "10s", "0s", "5m"),
};
