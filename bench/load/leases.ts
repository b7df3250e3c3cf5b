// Grants leases in etcd: ids 1 to `count`, for the keep-alives of `heartbeats.ts`.
import grpc from "@grpc/grpc-js";
import { doJobs } from "../harness/jobs.ts";
import { withSequence } from "./beat-messages.ts";

const identity = (buffer: Buffer): Buffer => buffer;
/** `LeaseGrantRequest`, rpc.proto of etcd 3: TTL in seconds is field 1, ID field 2. */
const ID_TAG = 0x10;
const TTL_S = 600;

/** Each lease is written to disk, many with one write. */
const AT_ONCE = 50;

doJobs({
  grant: async ({ address, count }: { address: string; count: number }) => {
    const client = new grpc.Client(address, grpc.credentials.createInsecure());
    for (let first = 1; first <= count; first += AT_ONCE) {
      const ids = Array.from({ length: Math.min(AT_ONCE, count - first + 1) }, (_, n) => first + n);
      await Promise.all(ids.map((id) => grant(client, id)));
    }
    client.close();
    return {};
  },
});

function grant(client: grpc.Client, id: number): Promise<void> {
  const idField = withSequence(id, Buffer.alloc(0));
  idField[0] = ID_TAG;
  const request = withSequence(TTL_S, idField);
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest("/etcdserverpb.Lease/LeaseGrant", identity, identity, request, (error) =>
      error === null ? resolve() : reject(error),
    );
  });
}
