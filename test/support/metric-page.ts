/** A page of metrics, as Prometheus reads it. */
export class MetricPage {
  readonly #samples = new Map<string, number>();

  constructor(text: string) {
    for (const line of text.split("\n")) {
      const [, name = "", labels = "", value = ""] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
      if (name !== "")
        this.#samples.set(
          keyOf(
            name,
            [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label = "", one = ""]) => [label, one]),
          ),
          Number(value),
        );
    }
  }

  static async of(metrics: { metrics(): Promise<string> }): Promise<MetricPage> {
    return new MetricPage(await metrics.metrics());
  }

  static async at(address: string, headers: Readonly<Record<string, string>> = {}): Promise<MetricPage> {
    return new MetricPage(await (await fetch(`http://${address}/metrics`, { headers })).text());
  }

  /** The value of a series; undefined: there is none. */
  get(name: string, labels: Readonly<Record<string, string>> = {}): number | undefined {
    return this.#samples.get(keyOf(name, Object.entries(labels)));
  }

  get names(): ReadonlySet<string> {
    return new Set([...this.#samples.keys()].map((key) => key.split(" ", 1)[0] ?? ""));
  }
}

function keyOf(name: string, labels: readonly (readonly string[])[]): string {
  return `${name} ${JSON.stringify(labels.toSorted())}`;
}
