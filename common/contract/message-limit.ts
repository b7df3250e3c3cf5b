/** The largest message that the service accepts, in bytes after decompression: 1 MiB. The contract promises it. */
export const MAX_MESSAGE_BYTES = 1_048_576;
