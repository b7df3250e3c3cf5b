// The lower bound: a bare grpc-js service that sends each message back without decoding it.
import grpc from "@grpc/grpc-js";

const identity = (buffer: Buffer): Buffer => buffer;
const method = {
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
};

const server = new grpc.Server();
server.addService(
  {
    stream: { ...method, path: "/bench.Echo/Stream", requestStream: true, responseStream: true },
    unary: { ...method, path: "/bench.Echo/Unary", requestStream: false, responseStream: false },
  },
  {
    stream: (call: grpc.ServerDuplexStream<Buffer, Buffer>) => {
      call.on("data", (message: Buffer) => call.write(message));
      call.on("end", () => call.end());
      call.on("error", () => undefined);
    },
    unary: (call: grpc.ServerUnaryCall<Buffer, Buffer>, answer: grpc.sendUnaryData<Buffer>) =>
      answer(null, call.request),
  },
);
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error;
  console.log(`serving 127.0.0.1:${port}`);
});
