import { Histogram, type HistogramConfiguration } from "prom-client";
import type { Distribution } from "./distribution.ts";

interface SeriesOfDistributions {
  all(): Iterable<{ readonly labels: Readonly<Record<string, string>>; readonly value: Distribution }>;
}

/** A histogram of prom-client that serves distributions, which are counted without it. */
export class SeriesHistogram extends Histogram {
  readonly #name: string;
  readonly #series: SeriesOfDistributions;

  constructor(configuration: HistogramConfiguration<string>, series: SeriesOfDistributions) {
    super(configuration);
    this.#name = configuration.name;
    this.#series = series;
  }

  override async get(): ReturnType<Histogram["get"]> {
    const served = await super.get();
    return { ...served, values: [...this.#values()] };
  }

  /** The registry prefers this method, which its types do not list. */
  getForPromString(): ReturnType<Histogram["get"]> {
    return this.get();
  }

  *#values(): Iterable<{ metricName: string; labels: Record<string, string | number>; value: number }> {
    for (const { labels, value } of this.#series.all()) {
      for (const [le, count] of value.cumulative())
        yield { metricName: `${this.#name}_bucket`, labels: { ...labels, le }, value: count };
      const { count, sum } = value;
      yield { metricName: `${this.#name}_bucket`, labels: { ...labels, le: "+Inf" }, value: count };
      yield { metricName: `${this.#name}_sum`, labels: { ...labels }, value: sum };
      yield { metricName: `${this.#name}_count`, labels: { ...labels }, value: count };
    }
  }
}
