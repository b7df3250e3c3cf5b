// Writes proto/buf/validate/validate.proto from the descriptor in its npm package.
import { mkdir, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { printValidateProto, VALIDATE_PROTO } from "./validate-proto.ts";

const text = await printValidateProto();
await mkdir(dirname(VALIDATE_PROTO), { recursive: true });
await writeFile(VALIDATE_PROTO, text);
