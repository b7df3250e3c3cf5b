// Preloaded with --import: prints the URL of each module that the process loads, at its end, as the last line of standard error.
import { registerHooks } from "node:module";

const loaded = [];
registerHooks({
  load(url, context, next) {
    loaded.push(url);
    return next(url, context);
  },
});
process.on("exit", () => process.stderr.write(`\n${JSON.stringify(loaded)}\n`));
