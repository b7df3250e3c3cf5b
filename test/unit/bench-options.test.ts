import { describe, expect, it } from "vitest";
import { OptionError, readOptions } from "../../bench/harness/options.ts";

const scenarios = ["heartbeats", "news"];

describe("the options of the bench", () => {
  it("default to all scenarios that run together, on a small scale, in five rounds", () => {
    expect(readOptions([], scenarios)).toEqual({
      only: [],
      without: [],
      peers: false,
      full: false,
      rounds: 5,
      roundMs: 1_000,
      out: "bench/out",
      docs: false,
      redraw: false,
    });
  });

  it("name scenarios, rounds and their length", () => {
    const args = ["--only", "news", "--only", "heartbeats", "--scale", "full", "--rounds", "7", "--seconds", "2.5"];
    expect(readOptions(args, scenarios)).toMatchObject({
      only: ["news", "heartbeats"],
      full: true,
      rounds: 7,
      roundMs: 2_500,
    });
  });

  it.each([
    [["--only", "weather"], "Unknown scenario weather. Use heartbeats, news."],
    [["--without", "weather"], "Unknown scenario weather. Use heartbeats, news."],
    [["--scale", "huge"], "--scale must be small or full, not huge."],
    [["--rounds", "0"], "--rounds is a whole number from 1 to 100, not 0."],
    [["--seconds", "soon"], "--seconds is a number from 0.5 to 600, not soon."],
    [["--rounds", ""], "--rounds is a whole number from 1 to 100, not nothing."],
  ])("are rejected with a sentence: %j", (args, sentence) => {
    expect(() => readOptions(args, scenarios)).toThrow(new OptionError(sentence));
  });

  it.each([[["--loud"]], [["news"]], [["--only"]]])("that do not exist are rejected: %j", (args) => {
    expect(() => readOptions(args, scenarios)).toThrow(OptionError);
  });
});
