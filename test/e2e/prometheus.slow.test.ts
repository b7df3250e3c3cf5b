import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { dashboardExpressions, OBSERVABILITY } from "../../scripts/observability.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { openStage, type Running, type Serving, type Stage } from "../support/program.ts";
import { prometheusProgram } from "../support/prometheus.ts";
import { until } from "../support/until.ts";

// Debian's Prometheus scrapes real services with a simulated fleet, and evaluates the rules of deploy/observability as they are.

const prometheus = prometheusProgram("prometheus") ?? "";

/** The job of the service whose database goes away, which the rules expect, and of the one whose claws fall silent. */
const JOB = "harborforge-agents";
const SILENT_JOB = "silent-claws";
/** Alerts wait for two minutes at most, and the brake for leases of a minute. */
const FIRED_MS = 300_000;
const TEST_MS = 560_000;

interface Alert {
  readonly labels: Readonly<Record<string, string>>;
  readonly state: string;
}

/** Prometheus on a port and in a folder of its own. */
class TestPrometheus {
  readonly #url: string;

  constructor(url: string) {
    this.#url = url;
  }

  static async start(stage: Stage, targets: Readonly<Record<string, string>>): Promise<TestPrometheus> {
    const configuration = {
      global: { scrape_interval: "1s", evaluation_interval: "1s" },
      rule_files: [join(OBSERVABILITY, "*.yml")],
      scrape_configs: Object.entries(targets).map(([job_name, target]) => ({
        job_name,
        static_configs: [{ targets: [target] }],
      })),
    };
    // JSON is YAML.
    const file = join(stage.path, "prometheus.yml");
    await writeFile(file, JSON.stringify(configuration));
    const running = stage.run(prometheus, [
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(stage.path, "tsdb")}`,
      "--web.listen-address=127.0.0.1:0",
    ]);
    const address = await until("Prometheus listens", () => /Listening on" address=(\S+)/.exec(running.stderr)?.[1]);
    return new TestPrometheus(`http://${address}`);
  }

  async get<Data>(path: string): Promise<Data> {
    const response = await fetch(`${this.#url}/api/v1/${path}`);
    const answer: { status: string; data: Data; error?: string } = JSON.parse(await response.text());
    if (answer.status !== "success") throw new Error(`${path}: ${answer.error}`);
    return answer.data;
  }

  /** The names of the alerts of a job that are firing. */
  async firing(job: string): Promise<string[]> {
    const { alerts } = await this.get<{ alerts: readonly Alert[] }>("alerts");
    return alerts.flatMap(({ labels, state }) =>
      labels.job === job && state === "firing" && labels.alertname !== undefined ? [labels.alertname] : [],
    );
  }

  async untilFiring(job: string, wanted: readonly string[]): Promise<void> {
    const seen = new Set<string>();
    await until(
      `these alerts fire: ${wanted.join(", ")}`,
      async () => {
        for (const name of await this.firing(job)) seen.add(name);
        return wanted.every((name) => seen.has(name));
      },
      FIRED_MS,
    );
  }

  async untilResolved(job: string, wanted: readonly string[]): Promise<void> {
    await until(
      `these alerts are resolved: ${wanted.join(", ")}`,
      async () => {
        const firing = await this.firing(job);
        return wanted.every((name) => !firing.includes(name));
      },
      FIRED_MS,
    );
  }
}

function simulate(stage: Stage, { grpc }: Serving, names: string): Running {
  const fleet = ["--agents", "40", "--claws", "8", "--no-faults", "--names", names];
  return stage.program(["simulate", "--address", grpc, ...fleet]);
}

describe.skipIf(prometheus === "")("with Prometheus and a simulated fleet", () => {
  test(
    "the alerts fire when the database is away and when the claws fall silent, and resolve when it is over",
    async () => {
      await using undo = new AsyncDisposableStack();
      const databases = [undo.use(await createTestDatabase()), undo.use(await createTestDatabase())];
      const [url = "", silentUrl = ""] = databases.map((database) => database.url);
      const proxy = undo.use(await FaultProxy.open(() => [Number(new URL(url).port)]));
      const stage = undo.use(await openStage());
      const service = await stage.serve({ env: { DATABASE_URL: url.replace(/@[^/]+\//, `@${proxy.address}/`) } });
      const silent = await stage.serve({
        env: { DATABASE_URL: silentUrl, HARBORFORGE_HEARTBEAT_INTERVAL: "20s", HARBORFORGE_FIRST_LEASE: "60s" },
      });
      const targets = { [JOB]: new URL(service.http).host, [SILENT_JOB]: new URL(silent.http).host };
      const alarms = await TestPrometheus.start(stage, targets);
      simulate(stage, service, "away");
      const claws = simulate(stage, silent, "silent");
      const beats = (job: string) =>
        `query?query=${encodeURIComponent(`harborforge_heartbeats_total{job="${job}"} > 30`)}`;
      for (const job of [JOB, SILENT_JOB])
        await until(
          `the fleet of ${job} sends heartbeats`,
          async () => (await alarms.get<{ result: readonly object[] }>(beats(job))).result.length > 0,
        );

      // Every rule and every panel can be evaluated, with real metrics.
      const { groups } = await alarms.get<{
        groups: readonly { rules: readonly { name: string; health: string }[] }[];
      }>("rules");
      expect(groups.flatMap(({ rules }) => rules).filter(({ health }) => health === "err")).toEqual([]);
      for (const { expr } of await dashboardExpressions()) await alarms.get(`query?query=${encodeURIComponent(expr)}`);
      expect(await alarms.firing(JOB)).toEqual([]);

      proxy.cut();
      claws.kill("SIGKILL");
      const away = [
        "HarborforgeDatabaseDown",
        "HarborforgeNoReadyReplica",
        "HarborforgeLogNotRead",
        "HarborforgeChangesStuck",
      ];
      await alarms.untilFiring(JOB, away);
      proxy.mend();
      await alarms.untilResolved(JOB, away);

      const mass = ["HarborforgeExpiryBrakeEngaged"];
      await alarms.untilFiring(SILENT_JOB, mass);
      await alarms.untilResolved(SILENT_JOB, mass);
      // The other service was not affected by it.
      expect(await alarms.firing(JOB)).not.toContain("HarborforgeExpiryBrakeEngaged");
    },
    TEST_MS,
  );
});
