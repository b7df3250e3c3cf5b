import { Counter, Gauge, Registry } from "prom-client";
import { Count } from "./count.ts";
import { Distribution } from "./distribution.ts";
import type { LabelValues, MetricDefinition } from "./metric-definition.ts";
import { type LabelsOf, METRICS, type MetricName } from "./metric-table.ts";
import { SeriesHistogram } from "./series-histogram.ts";

type Labels = Readonly<Record<string, string>>;

/** The labels of a metric are all given, and none for a metric without labels. */
type LabelArguments<Name extends MetricName> = keyof LabelsOf<Name> extends never ? [] : [labels: LabelsOf<Name>];

/** The series of a metric, by the values of its labels. */
export class Series<Value> {
  readonly #names: readonly string[];
  readonly #create: () => Value;
  readonly #byKey = new Map<string, { readonly labels: Labels; readonly value: Value }>();

  constructor(names: readonly string[], create: () => Value) {
    this.#names = names;
    this.#create = create;
  }

  of(labels: Labels): Value {
    const key = this.#names.map((name) => labels[name]).join("\n");
    let series = this.#byKey.get(key);
    if (series === undefined) {
      series = { labels, value: this.#create() };
      this.#byKey.set(key, series);
    }
    return series.value;
  }

  all(): Iterable<{ readonly labels: Labels; readonly value: Value }> {
    return this.#byKey.values();
  }
}

/**
 * The metrics of one replica, by the table of their definitions. Its parts count by the objects that they get here. A counter or a
 * histogram whose labels have few values is served with all of them from the start, with 0: otherwise the first event would
 * be no increase.
 */
export class Metrics {
  readonly registry = new Registry();
  readonly contentType: string = Registry.PROMETHEUS_CONTENT_TYPE;
  readonly #counts = new Map<string, Series<Count>>();
  readonly #distributions = new Map<string, Series<Distribution>>();

  constructor() {
    for (const [name, definition] of Object.entries<MetricDefinition>(METRICS)) {
      if (definition.type === "counter") this.#counts.set(name, this.#addCounter(name, definition));
      else if (definition.type === "histogram") this.#distributions.set(name, this.#addHistogram(name, definition));
    }
  }

  /** The series of a counter with these labels. Keep it: looking it up takes longer than counting. */
  counter<Name extends MetricName<"counter">>(name: Name, ...[labels]: LabelArguments<Name>): Count {
    return seriesOf(this.#counts, name, labels);
  }

  /** The series of a histogram with these labels. Keep it: looking it up takes longer than observing. */
  histogram<Name extends MetricName<"histogram">>(name: Name, ...[labels]: LabelArguments<Name>): Distribution {
    return seriesOf(this.#distributions, name, labels);
  }

  /** Serves a gauge without labels. `read` is called at each scrape; undefined: there is no value yet. */
  gauge<Name extends MetricName<"gauge">>(name: Name, read: () => number | undefined): void {
    this.gauges(name, () => {
      const value = read();
      return value === undefined ? [] : [[{}, value]];
    });
  }

  /** Serves a gauge with labels. `read` is called at each scrape. */
  gauges<Name extends MetricName<"gauge">>(
    name: Name,
    read: () => Iterable<readonly [labels: LabelsOf<Name> | Record<never, string>, value: number]>,
  ): void {
    const { help, labels }: MetricDefinition = METRICS[name];
    const labelNames = Object.keys(labels ?? {});
    const gauge: Gauge = new Gauge({
      name,
      help: sentence(help),
      labelNames,
      registers: [this.registry],
      collect: () => {
        if (labelNames.length === 0) gauge.remove();
        else gauge.reset();
        for (const [values, value] of read()) gauge.set({ ...values }, value);
      },
    });
  }

  /** All metrics in Prometheus' text format. */
  metrics(): Promise<string> {
    return this.registry.metrics();
  }

  /** The sum over all series of a counter. */
  total(name: MetricName<"counter">): number {
    let sum = 0;
    for (const { value } of this.#counts.get(name)?.all() ?? []) sum += value.value;
    return sum;
  }

  #addCounter(name: string, definition: MetricDefinition): Series<Count> {
    const labelNames = Object.keys(definition.labels ?? {});
    const series = new Series(labelNames, () => new Count());
    const counter: Counter = new Counter({
      name,
      help: sentence(definition.help),
      labelNames,
      registers: [this.registry],
      collect: () => {
        counter.reset();
        for (const { labels, value } of series.all()) counter.inc({ ...labels }, value.value);
      },
    });
    for (const labels of knownLabels(definition)) series.of(labels);
    return series;
  }

  #addHistogram(name: string, definition: MetricDefinition): Series<Distribution> {
    const bounds = definition.buckets ?? [];
    const labelNames = Object.keys(definition.labels ?? {});
    const series = new Series(labelNames, () => new Distribution(bounds));
    new SeriesHistogram(
      { name, help: sentence(definition.help), labelNames, buckets: [...bounds], registers: [this.registry] },
      series,
    );
    for (const labels of knownLabels(definition)) series.of(labels);
    return series;
  }
}

function seriesOf<Value>(all: ReadonlyMap<string, Series<Value>>, name: string, labels: Labels = {}): Value {
  const series = all.get(name);
  if (series === undefined) throw new TypeError(`no metric ${name} of this type`);
  return series.of(labels);
}

/** All combinations of the labels' values, if all of them are listed. */
function knownLabels({ labels = {} }: MetricDefinition): Labels[] {
  let known: Labels[] = [{}];
  for (const [label, values] of Object.entries<LabelValues>(labels)) {
    if (typeof values === "string") return [];
    known = known.flatMap((one) => values.map((value) => ({ ...one, [label]: value })));
  }
  return known;
}

function sentence(help: string): string {
  return `${help.replaceAll("`", "")}.`;
}
