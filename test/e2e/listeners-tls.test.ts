import { once } from "node:events";
import { mkdtemp, rename, rm, symlink, unlink, writeFile } from "node:fs/promises";
import http2 from "node:http2";
import { request } from "node:https";
import { connect as connectTcp, type Socket } from "node:net";
import { join } from "node:path";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { Client, credentials, type ServiceError } from "@grpc/grpc-js";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { type Peer, peerKey } from "../../src/rpc/callers/call-values.ts";
import { TlsError, type TlsSettings } from "../../src/rpc/tls/certificate-files.ts";
import { createTls } from "../../src/rpc/tls/tls-acceptor.ts";
import { type Authority, type CertificatePair, createAuthority, LOCAL_NAMES } from "../support/certificates.ts";
import { temporaryFolder } from "../support/owned-process.ts";
import { eventually, type RunningListeners, startListeners } from "../support/rpc-listeners.ts";

const GET_AGENT = "/harborforge.agents.v1.AgentService/GetAgent";

const authority = createAuthority();
const clientAuthority = createAuthority("clients");
let folder: string;

beforeAll(async () => {
  folder = await temporaryFolder("tls");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

let files = 0;
async function filesOf(pair: CertificatePair, clientCert: TlsSettings["clientCert"] = "none"): Promise<TlsSettings> {
  files += 1;
  const at = (name: string): string => join(folder, `${files}-${name}`);
  await writeFile(at("cert.pem"), pair.cert);
  await writeFile(at("key.pem"), pair.key);
  await writeFile(at("clients.pem"), clientAuthority.cert);
  return {
    certFile: at("cert.pem"),
    keyFile: at("key.pem"),
    clientCaFile: clientCert === "none" ? undefined : at("clients.pem"),
    clientCert,
  };
}

/** Listeners with TLS that record the peers of calls. */
async function secureListeners(
  clientCert: TlsSettings["clientCert"] = "none",
  limits = {},
): Promise<RunningListeners & { readonly settings: TlsSettings; readonly peers: Peer[] }> {
  const settings = await filesOf(authority.issue({ names: LOCAL_NAMES }), clientCert);
  const peers: Peer[] = [];
  const listeners = await startListeners({
    tls: settings,
    limits,
    callLimits: { requestsPerSecond: 1_000, streamsPerCaller: 1_000 },
    limitKey: (context) => {
      const peer = context.values.get(peerKey);
      peers.push(peer);
      return peer.address;
    },
  });
  return Object.assign(listeners, { settings, peers });
}

/** A handshake; resolves when the server has accepted the connection, by not closing it. */
async function handshake(address: string, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const [host = "", port] = address.split(":");
  const socket = connect({ host, port: Number(port), ca: authority.cert, ALPNProtocols: ["h2"], ...options });
  const failed = new Promise<never>((_resolve, reject) => {
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("closed")));
  });
  failed.catch(() => undefined);
  await Promise.race([once(socket, "secureConnect"), failed]);
  // In TLS 1.3 the client is done before the server has verified its certificate; the server sends first in
  // HTTP/2.
  await Promise.race([once(socket, "data"), failed]);
  return socket;
}

/** Resolves when the other end has closed the connection, or reset it. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket
      .on("error", () => undefined)
      .once("close", () => resolve())
      .resume();
  });
}

function getAgent(
  address: string,
  protocol: "gRPC" | "Connect over HTTP/1.1" | "Connect over HTTP/2",
  options: ConnectionOptions = {},
) {
  const nodeOptions = { ca: authority.cert, ...options };
  const baseUrl = `https://${address}`;
  const transport = {
    gRPC: () => createGrpcTransport({ baseUrl, nodeOptions }),
    "Connect over HTTP/1.1": () => createConnectTransport({ baseUrl, httpVersion: "1.1", nodeOptions }),
    "Connect over HTTP/2": () => createConnectTransport({ baseUrl, httpVersion: "2", nodeOptions }),
  }[protocol]();
  return createClient(AgentService, transport).getAgent({ key: { case: "agentId", value: "a" } }, { timeoutMs: 5_000 });
}

describe("TLS", () => {
  test("carries gRPC through both listeners, and HTTP/1.1 and HTTP/2 through the Connect listener", async () => {
    await using listeners = await secureListeners();
    await getAgent(listeners.grpcAddress, "gRPC");
    await getAgent(listeners.connectAddress, "gRPC");
    await getAgent(listeners.connectAddress, "Connect over HTTP/1.1");
    await getAgent(listeners.connectAddress, "Connect over HTTP/2");
    expect(listeners.peers).toHaveLength(4);
    for (const peer of listeners.peers)
      expect(peer).toMatchObject({ address: "127.0.0.1", encrypted: true, identity: undefined });
    expect(listeners.peers.map(({ listener }) => listener)).toEqual(["grpc", "connect", "connect", "connect"]);
  });

  test("carries a client of grpc-js, and its streams", async () => {
    await using listeners = await secureListeners();
    const client = new Client(listeners.grpcAddress, credentials.createSsl(Buffer.from(authority.cert)));
    const error = await new Promise<ServiceError | null>((resolve) => {
      client.makeUnaryRequest(
        GET_AGENT,
        (bytes: Buffer) => bytes,
        (bytes) => bytes,
        // An `agent_id` of one letter.
        Buffer.from("\n\u0001a"),
        { deadline: Date.now() + 5_000 },
        (failed) => resolve(failed),
      );
    });
    client.close();
    expect(error).toBeNull();
  });

  test("agrees on the protocol by ALPN, and serves HTTP/1.1 to clients without it", async () => {
    await using listeners = await secureListeners();
    const http2Socket = await handshake(listeners.connectAddress);
    expect(http2Socket.alpnProtocol).toBe("h2");
    http2Socket.destroy();
    const text = await new Promise<string>((resolve, reject) => {
      const options = { ca: authority.cert, agent: false, ALPNProtocols: [] };
      const req = request(`https://${listeners.connectAddress}/healthz`, options, (res) => {
        res.setEncoding("utf8").on("data", resolve);
      });
      req.on("error", reject).end();
    });
    expect(text).toBe("alive\n");
    await expect(handshake(listeners.grpcAddress, { ALPNProtocols: ["http/1.1"] })).rejects.toThrow();
    await expect(handshake(listeners.grpcAddress, { ALPNProtocols: [] })).rejects.toThrow();
  });

  test("is at least 1.2, and survives cleartext", async () => {
    await using listeners = await secureListeners();
    for (const address of [listeners.grpcAddress, listeners.connectAddress]) {
      const ciphers = "DEFAULT@SECLEVEL=0";
      await expect(handshake(address, { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers })).rejects.toThrow();
      (await handshake(address, { maxVersion: "TLSv1.2" })).destroy();
      const [host, port] = address.split(":");
      const clear = connectTcp(Number(port), host);
      clear.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
      await closed(clear);
    }
    await getAgent(listeners.grpcAddress, "gRPC");
  });

  test("closes connections with a slow handshake, also byte by byte", async () => {
    await using listeners = await secureListeners("none", { handshakeMs: 300 });
    for (const address of [listeners.grpcAddress, listeners.connectAddress]) {
      const [host, port] = address.split(":");
      const silent = connectTcp(Number(port), host);
      const trickling = connectTcp(Number(port), host);
      // A record of a handshake that never completes.
      const bytes = Buffer.from([0x16, 0x03, 0x01, 0x01, 0x00, 0x01, 0x00, 0x00, 0xfc, 0x03, 0x03]);
      let sent = 0;
      const timer = setInterval(() => {
        if (trickling.writable) trickling.write(bytes.subarray(sent % bytes.length, (sent % bytes.length) + 1));
        sent = Math.min(sent + 1, bytes.length - 1);
      }, 50);
      await Promise.all([silent, trickling].map(closed));
      clearInterval(timer);
    }
    await eventually("no connection is left", () => listeners.gate.open === 0);
  });
});

describe("client certificates", () => {
  const identity = { uris: ["spiffe://example.org/claw/7"], dnsNames: ["claw-7.example.org"] };

  test("that are required are verified, and calls know the names in them", async () => {
    await using listeners = await secureListeners("required");
    const good = clientAuthority.issue({ names: identity, usage: "client" });
    await getAgent(listeners.grpcAddress, "gRPC", good);
    await getAgent(listeners.connectAddress, "Connect over HTTP/1.1", good);
    await getAgent(listeners.connectAddress, "Connect over HTTP/2", good);
    expect(listeners.peers.map((peer) => peer.identity)).toMatchObject([identity, identity, identity]);

    const hour = 3_600_000;
    const wrong: [string, ConnectionOptions][] = [
      ["none", {}],
      ["one of another authority", authority.issue({ names: identity })],
      ["one for servers", clientAuthority.issue({ names: identity, usage: "server" })],
      [
        "an expired one",
        clientAuthority.issue({ notBefore: new Date(Date.now() - 2 * hour), notAfter: new Date(Date.now() - hour) }),
      ],
      ["one of the future", clientAuthority.issue({ notBefore: new Date(Date.now() + hour / 2) })],
    ];
    for (const [what, options] of wrong) {
      for (const address of [listeners.grpcAddress, listeners.connectAddress]) {
        for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
          await expect(handshake(address, { ...options, maxVersion }), `${what}, ${maxVersion}`).rejects.toThrow();
        }
      }
    }
    expect(listeners.peers).toHaveLength(3);
  });

  test("that are optional may be absent, and an invalid one is rejected", async () => {
    await using listeners = await secureListeners("optional");
    await getAgent(listeners.grpcAddress, "gRPC");
    await getAgent(listeners.connectAddress, "Connect over HTTP/1.1");
    await getAgent(listeners.grpcAddress, "gRPC", clientAuthority.issue({ names: identity, usage: "client" }));
    expect(listeners.peers.map((peer) => peer.identity)).toMatchObject([undefined, undefined, identity]);
    for (const address of [listeners.grpcAddress, listeners.connectAddress]) {
      await expect(handshake(address, authority.issue({ names: identity }))).rejects.toThrow();
    }
  });

  test("that are not requested are ignored", async () => {
    await using listeners = await secureListeners("none");
    await getAgent(listeners.grpcAddress, "gRPC", clientAuthority.issue({ names: identity, usage: "client" }));
    expect(listeners.peers.map((peer) => peer.identity)).toEqual([undefined]);
  });

  test("are verified at every connection: no session is resumed", async () => {
    await using listeners = await secureListeners("required");
    const pair = clientAuthority.issue({ names: identity });
    const first = await handshake(listeners.grpcAddress, pair);
    let session = first.getSession();
    first.on("session", (fresh) => {
      session = fresh;
    });
    first.destroy();
    const second = await handshake(listeners.grpcAddress, { ...pair, ...(session === undefined ? {} : { session }) });
    expect(second.isSessionReused()).toBe(false);
    second.destroy();
  });
});

describe("new TLS files", () => {
  /** The serial number of the certificate that a listener shows. */
  async function shown(address: string): Promise<string> {
    const socket = await handshake(address);
    const { serialNumber } = socket.getPeerCertificate();
    socket.destroy();
    return serialNumber;
  }

  test("apply to new connections, and end none", async () => {
    await using listeners = await secureListeners();
    const session = http2.connect(`https://${listeners.grpcAddress}`, { ca: authority.cert });
    session.on("error", () => undefined);
    await once(session, "connect");
    const before = await shown(listeners.grpcAddress);
    const pair = authority.issue({ names: LOCAL_NAMES });
    await writeFile(listeners.settings.certFile, pair.cert);
    await writeFile(listeners.settings.keyFile, pair.key);
    listeners.tls?.reload();
    const after = await shown(listeners.grpcAddress);
    expect(after).not.toBe(before);
    expect(await shown(listeners.connectAddress)).toBe(after);
    const pinged = new Promise<unknown>((resolve) => session.ping(resolve));
    expect(await pinged).toBeNull();
    session.destroy();
    expect(listeners.logged.filter((line) => line.includes('"event":"tls.reloaded"'))).toHaveLength(1);
  });

  test("are detected automatically, also behind a symbolic link that is swapped", async () => {
    const root = await mkdtemp(join(folder, "swap-"));
    const write = async (name: string): Promise<void> => {
      const pair = authority.issue({ names: LOCAL_NAMES });
      const into = await mkdtemp(join(root, `${name}-`));
      await writeFile(join(into, "tls.crt"), pair.cert);
      await writeFile(join(into, "tls.key"), pair.key);
      // As Kubernetes does it: a link is made beside the old one, and renamed over it.
      await symlink(into, join(root, "..data_tmp"));
      await rename(join(root, "..data_tmp"), join(root, "..data"));
    };
    await write("first");
    await using listeners = await startListeners({
      tls: {
        certFile: join(root, "..data/tls.crt"),
        keyFile: join(root, "..data/tls.key"),
        clientCaFile: undefined,
        clientCert: "none",
        everyMs: 20,
      },
    });
    const before = await shown(listeners.grpcAddress);
    await write("second");
    await eventually("the new files are used", () =>
      listeners.logged.some((line) => line.includes('"event":"tls.reloaded"')),
    );
    expect(await shown(listeners.grpcAddress)).not.toBe(before);
  });

  test("that cannot be used log one warning, and change nothing", async () => {
    await using listeners = await secureListeners();
    const before = await shown(listeners.grpcAddress);
    const warnings = (): string[] => listeners.logged.filter((line) => line.includes('"event":"tls.files_rejected"'));
    const other = authority.issue({ names: LOCAL_NAMES });
    await writeFile(listeners.settings.keyFile, other.key);
    listeners.tls?.reload();
    expect(warnings(), "it may be half written").toHaveLength(0);
    for (let look = 0; look < 3; look += 1) listeners.tls?.reload();
    expect(warnings()).toHaveLength(1);
    expect(warnings()[0]).toContain("does not belong to the certificate");
    await unlink(listeners.settings.certFile);
    for (let look = 0; look < 3; look += 1) listeners.tls?.reload();
    expect(warnings()).toHaveLength(2);
    expect(await shown(listeners.grpcAddress)).toBe(before);
    expect(await shown(listeners.connectAddress)).toBe(before);
    for (const line of listeners.logged) expect(line).not.toContain("PRIVATE KEY");
    await writeFile(listeners.settings.certFile, other.cert);
    listeners.tls?.reload();
    expect(await shown(listeners.grpcAddress)).not.toBe(before);
  });

  test("with another authority make the server reject clients of the former one", async () => {
    await using listeners = await secureListeners("required");
    const client = clientAuthority.issue({ usage: "client" });
    (await handshake(listeners.grpcAddress, client)).destroy();
    const next: Authority = createAuthority("clients, later");
    if (listeners.settings.clientCaFile === undefined) throw new Error("there is one");
    await writeFile(listeners.settings.clientCaFile, next.cert);
    listeners.tls?.reload();
    await expect(handshake(listeners.grpcAddress, client)).rejects.toThrow();
    (await handshake(listeners.grpcAddress, next.issue({ usage: "client" }))).destroy();
  });
});

describe("TLS files that cannot be used", () => {
  test("are reported in a sentence, with the setting to change", async () => {
    const pair = authority.issue({ names: LOCAL_NAMES });
    const good = await filesOf(pair, "required");
    const junk = join(folder, "junk.pem");
    await writeFile(junk, "-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n");
    const huge = join(folder, "huge.pem");
    await writeFile(huge, Buffer.alloc(1_100_000));
    const cases: [Partial<TlsSettings>, RegExp][] = [
      [
        { certFile: join(folder, "missing") },
        /certificate .*missing cannot be read: there is no such file\. Check HARBORFORGE_TLS_CERT_FILE\.$/,
      ],
      [{ keyFile: folder }, /private key .* cannot be read: it is a folder\. Check HARBORFORGE_TLS_KEY_FILE\.$/],
      [{ certFile: huge }, /larger than 1048576 bytes/],
      [{ certFile: "/dev/zero" }, /larger than 1048576 bytes/],
      [{ certFile: junk }, /is not a certificate in PEM form\. Check HARBORFORGE_TLS_CERT_FILE\.$/],
      [{ keyFile: good.certFile }, /is not a private key in PEM form.*HARBORFORGE_TLS_KEY_FILE\.$/],
      [{ keyFile: (await filesOf(authority.issue())).keyFile }, /does not belong to the certificate/],
      [
        { clientCaFile: junk },
        /clients' authority .* is not a certificate in PEM form\. Check HARBORFORGE_TLS_CLIENT_CA_FILE\.$/,
      ],
    ];
    for (const [settings, sentence] of cases) {
      const start = (): void => createTls({ ...good, ...settings, log: pino({ enabled: false }) }).close();
      expect(start).toThrow(TlsError);
      expect(start).toThrow(sentence);
    }
  });

  test("log a warning for an expired certificate, which is still served", async () => {
    const hour = 3_600_000;
    const expired = authority.issue({
      names: LOCAL_NAMES,
      notBefore: new Date(Date.now() - 2 * hour),
      notAfter: new Date(Date.now() - hour),
    });
    await using listeners = await startListeners({ tls: await filesOf(expired) });
    listeners.tls?.reload();
    expect(listeners.logged.filter((line) => line.includes('"event":"tls.certificate_expired"'))).toHaveLength(1);
    (await handshake(listeners.grpcAddress, { rejectUnauthorized: false })).destroy();
  });
});

describe("a client that speaks HTTP in cleartext to a port with TLS", () => {
  /** All that the server sends to these bytes, until it closes the connection. */
  async function answerTo(address: string, bytes: string | Buffer): Promise<Buffer> {
    const [host, port] = address.split(":");
    const socket = connectTcp(Number(port), host);
    socket.on("error", () => undefined);
    socket.write(bytes);
    const pieces: Buffer[] = [];
    for await (const piece of socket) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  test("is told to use TLS", async () => {
    await using listeners = await secureListeners();
    for (const address of [listeners.grpcAddress, listeners.connectAddress]) {
      for (const method of ["GET", "POST", "OPTIONS"]) {
        const text = (await answerTo(address, `${method} /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n`)).toString();
        expect(text).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
        expect(text).toContain("This port needs TLS: use an https:// address.");
      }
      const session = http2.connect(`http://${address}`);
      session.on("error", () => undefined);
      const [code, , text] = await once(session, "goaway");
      expect(code).toBe(http2.constants.NGHTTP2_INADEQUATE_SECURITY);
      expect(String(text)).toBe("This port needs TLS: use an https:// address.");
      session.destroy();
    }
  });

  test("gets no answer to other bytes, and its connection is closed", async () => {
    await using listeners = await secureListeners();
    for (const bytes of ["hello", "\u0000\u0001", "GETTING"]) {
      expect((await answerTo(listeners.connectAddress, bytes)).toString()).toBe("");
    }
  });

  test("does not disturb a handshake that arrives byte by byte", async () => {
    await using listeners = await secureListeners();
    const socket = await handshake(listeners.grpcAddress);
    expect(socket.authorized).toBe(true);
    socket.destroy();
  });
});
