/** A fenced block of a Markdown file that is to be run: `<!-- run: TEXT -->` or `<!-- run until: TEXT -->` precedes it. */
export interface RunnableBlock {
  readonly language: string;
  readonly code: string;
  /** What has to appear in its output. */
  readonly shows: string;
  /** Whether it ends by itself; otherwise it is interrupted once it has shown that. */
  readonly ends: boolean;
}

export function runnableBlocks(markdown: string): RunnableBlock[] {
  const blocks: RunnableBlock[] = [];
  for (const found of markdown.matchAll(/^<!-- run( until)?: (.+) -->\n```(\w+)\n([\s\S]*?)^```$/gm)) {
    const [, until, shows = "", language = "", code = ""] = found;
    blocks.push({ language, code, shows, ends: until === undefined });
  }
  return blocks;
}

/** The lines between `<!-- NAME -->` and `<!-- /NAME -->`. */
export function section(markdown: string, name: string): string {
  const [, text] = new RegExp(`<!-- ${name} -->\n([\\s\\S]*?)<!-- /${name} -->`).exec(markdown) ?? [];
  if (text === undefined) throw new Error(`there is no section ${name}`);
  return text;
}
