// Loaded by the gateway's process: SIGUSR2 blocks its event loop for 40 s, as was seen at the start of a gateway.
process.on("SIGUSR2", () => {
  process.stdout.write("the event loop is blocked\n");
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 40_000);
  process.stdout.write("the event loop runs again\n");
});
