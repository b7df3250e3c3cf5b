// Writes the fast path of the gRPC listener from the descriptors in gen/.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { FAST_PATH_FILE, FAST_PATH_MESSAGES, fastPathSource } from "./fast-path.ts";
import { root } from "./run-tool.ts";

await writeFile(join(root, FAST_PATH_FILE), fastPathSource(FAST_PATH_MESSAGES));
