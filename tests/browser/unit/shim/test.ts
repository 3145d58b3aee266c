/** What the unit tests use of `node:test`, for a browser: `test` collects them, {@link run} runs them in turn. */

/** How a test went: without an error, well. */
export interface Outcome {
  readonly name: string;
  readonly error: string | null;
}

/** The browser's own: some tests put a false clock in their place. */
const { setTimeout, clearTimeout } = globalThis;
const tests: [name: string, body: () => unknown][] = [];

export function test(name: string, body: () => unknown): void {
  tests.push([name, body]);
}

/** Run all tests, each when that before it has ended, for at most so many milliseconds. */
export async function run(timeout: number): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const [name, body] of tests) outcomes.push({ name, error: await outcomeOf(body, timeout) });
  return outcomes;
}

async function outcomeOf(body: () => unknown, timeout: number): Promise<string | null> {
  let timer: number | undefined;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${timeout} ms`)), timeout);
  });
  try {
    await Promise.race([body(), late]);
    return null;
  } catch (error) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  } finally {
    clearTimeout(timer);
  }
}
