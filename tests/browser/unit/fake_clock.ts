/**
 * Time that moves only when a test says so: `setTimeout`, `setInterval`, `performance.now` and `Date.now` go by it.
 */

interface Timer {
  due: number;
  run: () => void;
  every: number | null;
}

export class FakeClock {
  /** Seconds since the test began. */
  now = 1000;
  /** Seconds that the machine slept, which only the time of day counts. */
  slept = 0;
  readonly #timers = new Map<number, Timer>();
  #last = 0;
  /** What the machine has. */
  static readonly #turn = globalThis.setTimeout.bind(globalThis);

  /** Run a test by this clock. */
  static async run(test: (clock: FakeClock) => Promise<void>): Promise<void> {
    const clock = new FakeClock();
    const { setTimeout, clearTimeout, setInterval, clearInterval } = globalThis;
    const [real, date] = [performance.now, Date.now];
    const forget = (id: unknown): void => void clock.#timers.delete(Number(id));
    Object.assign(globalThis, {
      setTimeout: (run: () => void, ms = 0, ...values: unknown[]) =>
        clock.#set(run.bind(null, ...(values as [])), ms, null),
      setInterval: (run: () => void, ms: number) => clock.#set(run, ms, ms / 1000),
      clearTimeout: forget,
      clearInterval: forget,
    });
    performance.now = () => clock.now * 1000;
    Date.now = () => 1_800_000_000_000 + (clock.now + clock.slept) * 1000;
    try {
      await test(clock);
    } finally {
      Object.assign(globalThis, { setTimeout, clearTimeout, setInterval, clearInterval });
      performance.now = real;
      Date.now = date;
    }
  }

  /** Let so many seconds pass, and everything happen that is due in them. */
  async advance(seconds: number): Promise<void> {
    const until = this.now + seconds;
    await this.settle();
    for (;;) {
      const [next] = [...this.#timers].filter(([, { due }]) => due <= until).sort(([, a], [, b]) => a.due - b.due);
      if (!next) break;
      const [id, timer] = next;
      this.now = Math.max(this.now, timer.due);
      if (timer.every) timer.due += timer.every;
      else this.#timers.delete(id);
      timer.run();
      await this.settle();
    }
    this.now = until;
  }

  /** Let everything happen that needs no time. */
  async settle(): Promise<void> {
    await new Promise((done) => FakeClock.#turn(done, 0));
  }

  #set(run: () => void, ms: number, every: number | null): number {
    this.#timers.set(++this.#last, { due: this.now + Math.max(0, ms) / 1000, run, every });
    return this.#last;
  }
}
