import { figure } from "../harness/figures.ts";
import { Worker } from "../harness/processes.ts";
import { informs, type Scenario } from "../harness/scenario.ts";
import { seedAgents } from "../harness/stage.ts";
import type { NewsFigures } from "../load/news.ts";

const AGENT = "news-1";
const WARM_UP = 150;
/** Changes of each round. */
const CHANGES = 150;

/**
 * The time until watchers at two replicas get a status that was set at one of them. It begins at PostgreSQL's timestamp
 * of the transition, so it includes the commit: slightly more than the promise covers.
 */
export const news: Scenario = {
  name: "news",
  title: "Time from a change to its watchers",
  async run(stage, bench) {
    const url = await stage.database("bench_news");
    await seedAgents(stage, url, { prefix: "news-", count: 1_000 });
    await using undo = new AsyncDisposableStack();
    const same = undo.use(await stage.replica(url));
    const other = undo.use(await stage.replica(url));
    const load = undo.use(new Worker("load/news.ts", "load"));
    await load.do("open", { same: same.grpc, other: other.grpc, agentId: AGENT });
    await load.do("count", { agentId: AGENT, count: WARM_UP });
    const rounds: NewsFigures[] = [];
    for (let round = 0; round < bench.rounds; round += 1)
      rounds.push(await load.do<NewsFigures>("count", { agentId: AGENT, count: CHANGES }));
    await load.do("close");
    const each = (value: (round: NewsFigures) => number) => rounds.map(value);
    return [
      {
        name: "change → watcher, same replica, p99",
        unit: "ms",
        figure: figure(each(({ same }) => same.p99Ms)),
        must: 50,
        aim: 15,
      },
      {
        name: "change → watcher, other replica, p99",
        unit: "ms",
        figure: figure(each(({ other }) => other.p99Ms)),
        must: 150,
        aim: 40,
      },
      informs(
        "change → watcher, same replica, p50",
        "ms",
        each(({ same }) => same.p50Ms),
      ),
      informs(
        "change → watcher, other replica, p50",
        "ms",
        each(({ other }) => other.p50Ms),
      ),
      informs(
        "answer → watcher, same replica, p99",
        "ms",
        each(({ sameFromAnswer }) => sameFromAnswer.p99Ms),
      ),
      informs(
        "answer → watcher, other replica, p99",
        "ms",
        each(({ otherFromAnswer }) => otherFromAnswer.p99Ms),
      ),
      informs(
        "call → answer, p50",
        "ms",
        each(({ answer }) => answer.p50Ms),
      ),
      informs(
        "call → answer, p99",
        "ms",
        each(({ answer }) => answer.p99Ms),
      ),
    ];
  },
};
