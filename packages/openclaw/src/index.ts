// `openclaw-plugin-harborforge`: the entry that OpenClaw loads.
import { register } from "./plugin.ts";

// OpenClaw takes the default export.
export default {
  id: "harborforge",
  name: "HarborForge Agents",
  description: "Reports the status of every agent of this gateway to HarborForge Agents.",
  register,
};
