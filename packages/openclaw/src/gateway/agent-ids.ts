/** The agent of a session: `agent:<id>:…`. */
export function agentOfSession(sessionKey: string | undefined): string | undefined {
  return /^agent:([^:]+):/.exec(sessionKey ?? "")?.[1]?.toLowerCase();
}

/** Whether the session belongs to a phone call: `agent:<id>:voice:…`, of the voice-call plugin. */
export function isVoiceSession(sessionKey: string | undefined): boolean {
  return /^agent:[^:]+:voice:/.test(sessionKey ?? "");
}
