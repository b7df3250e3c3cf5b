// Deprecated: programs build `harborforge-agents-client/heartbeat-worker`. This entry of the service's package goes with the next
// release.
import "harborforge-agents-client/heartbeat-worker";
