import type { ResponseCompression } from "@harborforge/connect-grpc-js";
import { Refusal } from "../../domain/errors.ts";
import { noSuchMethod } from "../errors/did-you-mean.ts";
import { acceptsGzip } from "../sockets/response-compression.ts";
import type { NodeRequest, NodeResponse } from "./node-request.ts";
import { rootPage } from "./root-page.ts";

/** The content of `/metrics`. */
export interface MetricsPage {
  readonly contentType: string;
  metrics(): Promise<string>;
}

/** The pages of the Connect listener that are not calls. */
export interface PlainPages {
  serve(req: NodeRequest, res: NodeResponse): void;
}

const PAGES: ReadonlySet<string> = new Set(["/", "/healthz", "/readyz", "/metrics"]);

const TEXT = "text/plain; charset=utf-8";
const HTML = "text/html; charset=utf-8";

/**
 * Serves `/`, `/healthz`, `/readyz` and `/metrics`. `/` says what the service is. `/healthz` responds if the process lives. `/readyz` says whether the
 * replica should get calls: 503 with the reason while it drains or its database is unavailable. It may have further lines
 * about problems that do not make the replica unready. `/metrics` is for Prometheus. Other paths get a 404 with an
 * explanation.
 *
 * @param methods the paths of all methods
 * @param mayReadMetrics throws, or rejects with, a refusal. Probes of the other pages have no credentials
 */
export function createPlainPages(
  methods: readonly string[],
  metrics: MetricsPage,
  ready: () => string | undefined,
  notes: () => readonly string[],
  mayReadMetrics: (req: NodeRequest) => void | Promise<void>,
  compression?: ResponseCompression,
): PlainPages {
  async function page(path: string, req: NodeRequest): Promise<{ status: number; type: string; text: string }> {
    switch (path) {
      case "/":
        return { status: 200, type: HTML, text: rootPage(methods) };
      case "/healthz":
        return { status: 200, type: TEXT, text: "alive\n" };
      case "/readyz": {
        const why = ready();
        const verdict = why === undefined ? "ready" : `not ready: ${why}`;
        const text = [verdict, ...notes(), ""].join("\n");
        return { status: why === undefined ? 200 : 503, type: TEXT, text };
      }
      case "/metrics":
        await mayReadMetrics(req);
        return { status: 200, type: metrics.contentType, text: await metrics.metrics() };
      default:
        return {
          status: 404,
          type: TEXT,
          text: `Not found: ${noSuchMethod(path, methods)}.\nSend calls by POST to /package.Service/Method. Pages: /, /healthz, /readyz, /metrics.\n`,
        };
    }
  }

  return {
    serve: (req, res) => {
      req.resume();
      const path = (req.url ?? "/").split("?", 1)[0] ?? "/";
      const withBody = req.method !== "HEAD";
      if (PAGES.has(path) && req.method !== "GET" && req.method !== "HEAD") {
        reply(res, 405, TEXT, "This path allows GET and HEAD.\n", true);
        return;
      }
      page(path, req).then(
        async ({ status, type, text }) => {
          const accepted = acceptsGzip(req.headers["accept-encoding"]?.toString());
          const compressed = accepted ? await compression?.compress(Buffer.from(text)) : undefined;
          reply(res, status, type, text, withBody, compressed);
        },
        (thrown: unknown) => {
          if (thrown instanceof Refusal) reply(res, statusOf(thrown), TEXT, `${thrown.message}\n`, withBody);
          else reply(res, 500, TEXT, "internal error\n", withBody);
        },
      );
    },
  };
}

/** As Connect does for calls. */
function statusOf({ reason }: Refusal): number {
  if (reason === "UNAUTHENTICATED") return 401;
  return reason === "PERMISSION_DENIED" ? 403 : 503;
}

function reply(
  res: NodeResponse,
  status: number,
  type: string,
  text: string,
  withBody: boolean,
  compressed?: Uint8Array,
): void {
  res.writeHead(status, {
    "content-type": type,
    "content-length": compressed?.length ?? Buffer.byteLength(text),
    ...(compressed === undefined ? {} : { "content-encoding": "gzip" }),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    ...(type === HTML ? { "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'" } : {}),
    ...(status === 405 ? { allow: "GET, HEAD" } : {}),
    ...(status === 401 ? { "www-authenticate": "Bearer" } : {}),
  });
  res.end(withBody ? (compressed ?? text) : "");
}
