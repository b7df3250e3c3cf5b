// Makes leases in etcd: ids 1 to `count`, for the keep-alives of `heartbeats.ts`.
import grpc from "@grpc/grpc-js";
import { doJobs } from "../harness/jobs.ts";
import { withSequence } from "./beat-messages.ts";

const identity = (buffer: Buffer): Buffer => buffer;
/** `LeaseGrantRequest`, rpc.proto of etcd 3: TTL in seconds is field 1, ID field 2. */
const ID_TAG = 0x10;
const TTL_S = 600;

doJobs({
  grant: async ({ address, count }: { address: string; count: number }) => {
    const client = new grpc.Client(address, grpc.credentials.createInsecure());
    for (let id = 1; id <= count; id += 1) {
      const idField = withSequence(id, Buffer.alloc(0));
      idField[0] = ID_TAG;
      const request = withSequence(TTL_S, idField);
      await new Promise<void>((resolve, reject) => {
        client.makeUnaryRequest("/etcdserverpb.Lease/LeaseGrant", identity, identity, request, (error) =>
          error === null ? resolve() : reject(error),
        );
      });
    }
    client.close();
    return {};
  },
});
