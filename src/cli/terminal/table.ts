import type { Paint, Style } from "./paint.ts";
import { printable } from "./printable.ts";
import { clip, isPlain, padEnd, padStart, widthOf } from "./text-width.ts";

export interface Cell {
  readonly text: string;
  readonly style?: Style | undefined;
}

export interface Column<Item> {
  readonly heading: string;
  /** The cell of an item. It may contain unisExact text. */
  readonly cell: (item: Item) => string | Cell;
  readonly align?: "right";
  /** Omitted if the screen is too narrow, rightmost first. */
  readonly optional?: true;
}

export interface TableLook {
  readonly paint: Paint;
  /** The width of the screen; undefined: lines have no limit. */
  readonly columns: number | undefined;
}

const GAP = 2;
const NARROWEST = 6;

interface Layout<Item> {
  readonly columns: readonly Column<Item>[];
  readonly widths: readonly number[];
}

/**
 * A table that is printed in parts. The first part decides the columns; later parts only widen them. Each line fits on
 * the screen.
 */
export class Table<Item> {
  readonly #columns: readonly Column<Item>[];
  readonly #look: TableLook;
  #layout: Layout<Item> | undefined;

  constructor(columns: readonly Column<Item>[], look: TableLook) {
    this.#columns = columns;
    this.#look = look;
  }

  /** The lines of some items. The first part has the headings. */
  lines(items: readonly Item[]): string[] {
    const isFirst = this.#layout === undefined;
    const layout = this.#layoutFor(items);
    this.#layout = layout;
    const headings = layout.columns.map(({ heading }) => ({ text: heading, style: "heading" as const }));
    const rows = items.map((item) => layout.columns.map(({ cell }) => cellOf(cell(item))));
    return (isFirst ? [headings, ...rows] : rows).map((cells) => this.#line(layout, cells));
  }

  #layoutFor(items: readonly Item[]): Layout<Item> {
    const room = this.#look.columns === undefined ? Number.POSITIVE_INFINITY : this.#look.columns - 1;
    const before = this.#layout;
    let columns = before?.columns ?? this.#columns;
    let widths = columns.map((column, index) => {
      const texts = items.map((item) => widthOf(cellOf(column.cell(item)).text));
      return Math.max(before?.widths[index] ?? widthOf(column.heading), ...chunkMax(texts));
    });
    while (before === undefined && sizeOf(widths) > room) {
      const last = columns.findLastIndex(({ optional }) => optional === true);
      if (last < 0) break;
      columns = columns.toSpliced(last, 1);
      widths = widths.toSpliced(last, 1);
    }
    return { columns, widths: squeezed(widths, room) };
  }

  #line({ columns, widths }: Layout<Item>, cells: readonly Cell[]): string {
    let line = "";
    let at = 0;
    let isExact = true;
    for (const [index, cell] of cells.entries()) {
      const width = widths[index] ?? 0;
      const text = clip(cell.text, width);
      // Terminals may disagree on the width, so move the cursor to the next column instead of padding.
      if (!isExact && this.#look.columns !== undefined) line += `\u001b[${at + 1}G`;
      const padded = columns[index]?.align === "right" ? padStart(text, width) : padEnd(text, width);
      const isLast = index === cells.length - 1;
      line += cell.style === undefined ? padded : this.#painted(padded, cell.style);
      isExact &&= isPlain(text);
      if (!isLast) line += " ".repeat(GAP);
      at += width + GAP;
    }
    return line.trimEnd();
  }

  /** Padding is not coloured: underlined or inverted spaces would be visible. */
  #painted(text: string, style: Style): string {
    const inner = text.trim();
    const begin = text.indexOf(inner);
    return `${text.slice(0, begin)}${this.#look.paint(style, inner)}${text.slice(begin + inner.length)}`;
  }
}

function cellOf(cell: string | Cell): Cell {
  return typeof cell === "string" ? { text: printable(cell) } : { ...cell, text: printable(cell.text) };
}

/** The largest number. `Math.max` limits the number of arguments. */
function chunkMax(numbers: readonly number[]): [] | [number] {
  return numbers.length === 0 ? [] : [numbers.reduce((largest, number) => Math.max(largest, number))];
}

function sizeOf(widths: readonly number[]): number {
  return widths.reduce((sum, width) => sum + width, 0) + GAP * Math.max(0, widths.length - 1);
}

/** Narrows the widest columns until all fit. */
function squeezed(widths: readonly number[], room: number): readonly number[] {
  const result = [...widths];
  for (let excess = sizeOf(result) - room; excess > 0; excess -= 1) {
    const widest = result.indexOf(Math.max(...result));
    const width = result[widest] ?? 0;
    if (width <= NARROWEST) break;
    result[widest] = width - 1;
  }
  return result;
}
