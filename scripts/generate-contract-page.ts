// Writes docs/contract.md from the comments of the proto files.
import { writeFile } from "node:fs/promises";
import { CONTRACT_PAGE, printContractPage } from "./contract-page.ts";

await writeFile(CONTRACT_PAGE, await printContractPage());
