/**
 * Files and sockets of a replica besides the connections of its callers: 19 connections to the database, two listeners, those of
 * Node and of the log. The rest is for files that are open for a moment.
 */
const RESERVED = 128;

/** Files and sockets that so many connections of callers need in all. */
export function openFilesFor(connections: number): number {
  return connections + RESERVED;
}

/** Connections of callers that a process may have with so many open files. A small limit is shared in equal parts. */
export function connectionsWithin(openFiles: number): number {
  return Math.max(1, openFiles - Math.min(RESERVED, Math.floor(openFiles / 2)));
}
