/** A fenced block of a Markdown file that is to be run: `<!-- run: TEXT -->`, `run until` or `run beside` precedes it. */
export interface RunnableBlock {
  readonly language: string;
  readonly code: string;
  /** The text that its output must contain. */
  readonly shows: string;
  /**
   * Ends by itself (`run`), is interrupted once its output has that text (`run until`), or runs beside the
   * later blocks.
   */
  readonly runs: "to its end" | "until" | "beside";
}

export function runnableBlocks(markdown: string): RunnableBlock[] {
  const blocks: RunnableBlock[] = [];
  for (const found of markdown.matchAll(/^<!-- run(?: (until|beside))?: (.+) -->\n```(\w+)\n([\s\S]*?)^```$/gm)) {
    const [, how, shows = "", language = "", code = ""] = found;
    blocks.push({ language, code, shows, runs: how === "until" || how === "beside" ? how : "to its end" });
  }
  return blocks;
}

/** The lines between `<!-- NAME -->` and `<!-- /NAME -->`. */
export function section(markdown: string, name: string): string {
  const [, text] = new RegExp(`<!-- ${name} -->\n([\\s\\S]*?)<!-- /${name} -->`).exec(markdown) ?? [];
  if (text === undefined) throw new Error(`there is no section ${name}`);
  return text;
}
