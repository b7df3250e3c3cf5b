// Deprecated: programs import `harborforge-agents-client`. This entry of the service's package goes with the next release.
export * from "harborforge-agents-client";
