import { expect, test } from "vitest";
import { tourContract } from "../support/contract-tour.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { startPostgresPair, whyNoStandby } from "../support/postgres-pair.ts";
import { startReplica } from "../support/service.ts";
import { until } from "../support/until.ts";

test("a failover that leads to a standby is named, and the replica serves again when the standby is promoted", async ({
  skip,
}) => {
  const why = whyNoStandby();
  if (why !== undefined) skip(why);
  await using pair = await startPostgresPair({ synchronous: false });
  const portOf = (url: string): number => Number(new URL(url).port);
  let target = portOf(pair.primaryUrl);
  await using proxy = await FaultProxy.open(() => [target]);
  const url = new URL(pair.primaryUrl);
  url.host = proxy.address;
  await using server = await startReplica(url.href);
  await tourContract(server.addresses);
  const readyz = async () => {
    const response = await fetch(`http://${server.addresses.http}/readyz`);
    return `${response.status} ${await response.text()}`;
  };
  expect(await readyz()).toBe("200 ready\n");

  target = portOf(pair.standbyUrl);
  proxy.drop();
  await until("the standby is named", async () =>
    /^503 not ready: .*cannot write to the database: it is read-only \(SQLSTATE 25006\)/.test(await readyz()),
  );
  await pair.promote();
  await until("the replica is ready", async () => (await readyz()).startsWith("200 ready"));
  await tourContract(server.addresses);
});
