import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { toRfc3339 } from "../../common/contract/time.ts";
import { parseDuration } from "../config/values.ts";
import type { IssuedToken, NewToken, TokenDirectory } from "../domain/api-token.ts";
import {
  DEFAULT_TOKEN_LIFETIME_MS,
  LONGEST_TOKEN_LIFETIME_MS,
  SHORTEST_TOKEN_LIFETIME_MS,
} from "../domain/api-token.ts";
import { type Grant, ROLES } from "../domain/principal.ts";
import { readFields, readName, readOptionalName } from "../domain/validation.ts";
import { clawNames } from "../simulate/fleet-plan.ts";
import { CommandFailure } from "./call-failure.ts";
import type { Flags } from "./command.ts";
import { EXIT_OK, EXIT_WRONG_SETTING } from "./exit-codes.ts";
import { reserveSecretFile, type SecretFile } from "./secret-file.ts";
import { printable } from "./terminal/printable.ts";
import { type Audit, withTokens } from "./token-directory.ts";

/** The flags of `tokens issue`. */
export interface IssueFlags {
  readonly role?: string;
  readonly principal?: string;
  readonly agentId?: readonly string[];
  readonly claw?: string;
  readonly lifetime?: string;
  readonly outputFile?: string;
  readonly overwrite?: true;
  /** The folder for the files of a simulation. */
  readonly forSimulate?: string;
  readonly names: string;
  readonly claws: number;
}

/** The limit of TokenService. */
const MAX_AGENT_IDS = 1_000;

/**
 * `tokens issue`: makes tokens directly in the database, so that there can be a first one. Standard output gets only the
 * token, or with `--output-file` and `--for-simulate` nothing.
 *
 * @returns the exit code
 */
export function issueTokenCommand(process: NodeJS.Process, flags: Flags, given: IssueFlags): Promise<number> {
  return withTokens(process, flags, async (tokens, actor, audit) => {
    const say = (line: string): void => void process.stderr.write(`${line}\n`);
    await using issuer = new Issuer(tokens, actor, audit);
    try {
      if (given.forSimulate === undefined) await issueOne(issuer, given, process, say);
      else await issueForSimulation(issuer, given.forSimulate, given, say);
      issuer.keep();
      return EXIT_OK;
    } catch (error) {
      if (!(error instanceof CommandFailure)) throw error;
      say(error.message);
      return error.exitCode;
    }
  });
}

async function issueOne(
  issuer: Issuer,
  given: IssueFlags,
  process: NodeJS.Process,
  say: (line: string) => void,
): Promise<void> {
  const token = readToken(given);
  using file =
    given.outputFile === undefined ? undefined : reserveSecretFile(given.outputFile, given.overwrite === true);
  if (file === undefined && given.overwrite === true) throw wrong("--overwrite needs --output-file or --for-simulate.");
  const { secret, until } = await issuer.issue(token);
  if (file === undefined) {
    say(`${until} The token is shown only once:`);
    process.stdout.write(`${secret}\n`);
  } else {
    file.write(`${secret}\n`);
    say(`${until} ${written(file)}`);
  }
}

/** Writes `admin.token` for `--token-file`, and `claws.tokens` for `--claw-tokens`. */
async function issueForSimulation(
  issuer: Issuer,
  folder: string,
  given: IssueFlags,
  say: (line: string) => void,
): Promise<void> {
  const { names, claws, role, principal, agentId, claw, outputFile } = given;
  if ([role, principal, agentId, claw, outputFile].some((flag) => flag !== undefined)) {
    throw wrong("--for-simulate decides on roles, principals and files: use it without their flags.");
  }
  const lifetimeMs = lifetimeOf(given.lifetime);
  makeFolder(folder);
  const overwrite = given.overwrite === true;
  using admin = reserveSecretFile(join(folder, "admin.token"), overwrite);
  using agents = reserveSecretFile(join(folder, "claws.tokens"), overwrite);
  const first = await issuer.issue({ principal: `${names}-simulate`, grant: { role: "admin" }, lifetimeMs });
  const lines: string[] = [];
  for (const name of clawNames(names, claws)) {
    const grant: Grant = { role: "agent", scope: { kind: "claw", clawIdentifier: name } };
    lines.push(`${name} ${(await issuer.issue({ principal: name, grant, lifetimeMs })).secret}\n`);
  }
  agents.write(lines.join(""));
  admin.write(`${first.secret}\n`);
  for (const file of [admin, agents]) say(written(file));
  const files = `--token-file ${admin.path} --claw-tokens ${agents.path}`;
  say(`Run: ${printable(`harborforge-agents simulate --names ${names} --claws ${claws} ${files}`)}`);
}

function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw wrong(`${printable(folder)} cannot be created: ${error instanceof Error ? error.message : String(error)}.`);
  }
}

function written({ path, replaces }: SecretFile): string {
  return `${replaces ? "Replaced" : "Wrote"} ${printable(path)}, readable by you only.`;
}

/** Issues tokens, and revokes them again if not all of them could be issued and written. */
class Issuer implements AsyncDisposable {
  readonly #tokens: TokenDirectory;
  readonly #actor: string;
  readonly #audit: Audit;
  #issued: IssuedToken["token"][] = [];

  constructor(tokens: TokenDirectory, actor: string, audit: Audit) {
    this.#tokens = tokens;
    this.#actor = actor;
    this.#audit = audit;
  }

  /** @returns the token as its bearer sends it, and a sentence about its key */
  async issue(token: NewToken): Promise<{ readonly secret: string; readonly until: string }> {
    const { principal, grant } = token;
    const issued = await this.#tokens.issue(token, { actor: this.#actor, request: undefined });
    const { keyId, expiresAt } = issued.token;
    this.#issued.push(issued.token);
    this.#audit({ method: "tokens issue", keyId, principal, role: grant.role });
    return { secret: issued.secret ?? "", until: `Key ${keyId}, valid until ${toRfc3339(expiresAt)}.` };
  }

  /** The tokens have reached the user. */
  keep(): void {
    this.#issued = [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { keyId, principal, grant } of this.#issued) {
      await this.#tokens.revoke(keyId, { actor: this.#actor, request: undefined });
      this.#audit({ method: "tokens revoke", keyId, principal, role: grant.role });
    }
  }
}

/** @throws CommandFailure, Refusal */
function readToken(given: IssueFlags): NewToken {
  const lifetimeMs = lifetimeOf(given.lifetime);
  return readFields((violations) => {
    const role = ROLES.find((one) => one === given.role);
    const claw = readOptionalName(violations, "--claw", given.claw);
    const agentIds = (given.agentId ?? []).map((agentId) => readName(violations, "--agent-id", agentId));
    if (agentIds.length > MAX_AGENT_IDS) violations.add("--agent-id", `must name at most ${MAX_AGENT_IDS} agents`);
    if (role === undefined) violations.add("--role", `must be one of ${ROLES.join(", ")}`);
    const named = Number(agentIds.length > 0) + Number(claw !== undefined);
    if (role === "agent" && named !== 1) violations.add("--role", "agent must come with either --agent-id or --claw");
    if (role !== "agent" && named !== 0) violations.add("--role", "must be agent for --agent-id or --claw");
    const grant: Grant =
      role !== "agent"
        ? { role: role ?? "viewer" }
        : claw === undefined
          ? { role, scope: { kind: "agents", agentIds: new Set(agentIds) } }
          : { role, scope: { kind: "claw", clawIdentifier: claw } };
    return { principal: readName(violations, "--principal", given.principal ?? ""), grant, lifetimeMs };
  });
}

/** Parses a lifetime in milliseconds. Only lifetimes have the unit day: `90d`. @throws CommandFailure */
function lifetimeOf(text: string | undefined): number {
  if (text === undefined) return DEFAULT_TOKEN_LIFETIME_MS;
  const [, days] = /^(\d{1,3})d$/.exec(text) ?? [];
  const ms = days === undefined ? parseDuration(text) : Number(days) * 24 * 3_600_000;
  if (ms !== undefined && ms >= SHORTEST_TOKEN_LIFETIME_MS && ms <= LONGEST_TOKEN_LIFETIME_MS) return ms;
  throw wrong("--lifetime must be a duration from 1s to 366d, such as 12h or 90d.");
}

function wrong(sentence: string): CommandFailure {
  return new CommandFailure(sentence, EXIT_WRONG_SETTING);
}
