import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import type { WakeService } from "../../../gen/harborforge/agents/v1/wake_service_pb.ts";

/** Implements `WakeService`. */
export function createWakeService(): ServiceImpl<typeof WakeService> {
  return {
    wakeAgent: notYet,
    cancelWake: notYet,
    getWake: notYet,
    listWakes: notYet,
    // biome-ignore lint/correctness/useYield: it never has a message
    async *followWake() {
      notYet();
    },
    pauseWakes: notYet,
    resumeWakes: notYet,
    listPauses: notYet,
  };
}

function notYet(): never {
  throw new ConnectError("this release has the contract of wakes only", Code.Unimplemented);
}
