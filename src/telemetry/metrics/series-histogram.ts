import { Histogram, type HistogramConfiguration } from "prom-client";
import type { Distribution } from "./distribution.ts";

interface SeriesOfDistributions {
  all(): Iterable<{ readonly labels: Readonly<Record<string, string>>; readonly value: Distribution }>;
}

interface Sample {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly sharedLabels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A histogram of prom-client that serves distributions, which are counted without it. */
export class SeriesHistogram extends Histogram {
  readonly #configuration: HistogramConfiguration<string>;
  readonly #series: SeriesOfDistributions;

  constructor(configuration: HistogramConfiguration<string>, series: SeriesOfDistributions) {
    super(configuration);
    this.#configuration = configuration;
    this.#series = series;
  }

  /** The library reads a histogram by this method, which its types do not list. */
  getForPromString(): Promise<object> {
    const { name, help } = this.#configuration;
    return Promise.resolve({ name, help, type: "histogram", aggregator: "sum", values: [...this.#samples(name)] });
  }

  *#samples(name: string): Iterable<Sample> {
    for (const { labels: sharedLabels, value: distribution } of this.#series.all()) {
      for (const [le, value] of distribution.cumulative())
        yield { metricName: `${name}_bucket`, labels: { le }, sharedLabels, value };
      const { count, sum } = distribution;
      yield { metricName: `${name}_bucket`, labels: { le: "+Inf" }, sharedLabels, value: count };
      yield { metricName: `${name}_sum`, labels: {}, sharedLabels, value: sum };
      yield { metricName: `${name}_count`, labels: {}, sharedLabels, value: count };
    }
  }
}
