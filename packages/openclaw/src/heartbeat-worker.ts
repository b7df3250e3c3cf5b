// The program of the thread that sends the heartbeats: a file of its own in the bundle.
import "harborforge-agents-client/heartbeat-worker";
