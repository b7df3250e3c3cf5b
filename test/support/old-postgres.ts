import { createServer, type Socket } from "node:net";

/**
 * Implements as much of PostgreSQL's protocol as a version check needs: accepts every login, and answers every
 * simple query with `version` (such as 140019) as `server_version_num`. See
 * https://www.postgresql.org/docs/current/protocol-message-formats.html
 */
export async function startOldPostgres(version: string) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined).on("close", () => sockets.delete(socket));
    let greeted = false;
    socket.on("data", (bytes) => {
      if (!greeted) {
        greeted = true;
        socket.write(Buffer.concat([message("R", int32(0)), READY]));
      } else if (bytes[0] === "Q".charCodeAt(0)) {
        socket.write(
          Buffer.concat([rowDescription("server_version_num"), dataRow(version), message("C", text("SHOW")), READY]),
        );
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  return {
    url: `postgres://user:password@127.0.0.1:${address.port}/database`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const READY = message("Z", Buffer.from("I"));

function message(type: string, body: Buffer): Buffer {
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body]);
}

function rowDescription(column: string): Buffer {
  const ofText = Buffer.concat([int32(0), int16(0), int32(25), int16(-1), int32(-1), int16(0)]);
  return message("T", Buffer.concat([int16(1), text(column), ofText]));
}

function dataRow(value: string): Buffer {
  return message("D", Buffer.concat([int16(1), int32(value.length), Buffer.from(value)]));
}

function text(value: string): Buffer {
  return Buffer.from(`${value}\0`);
}

function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}
