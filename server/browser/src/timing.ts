/** Waiting: the clock, and promises that end when somebody gives them up. */

/** Monotonic seconds. */
export const now = (): number => performance.now() / 1000;

/** Seconds as a timer takes them: one of more than 24 days would be due at once. */
export const milliseconds = (seconds: number): number => Math.min(seconds * 1000, 2 ** 31 - 1);

/** A promise and what settles it; one that nobody waits for may fail without a sound. */
export function later<T>(): PromiseWithResolvers<T> {
  const deferred = Promise.withResolvers<T>();
  deferred.promise.catch(() => {});
  return deferred;
}

/** What a promise gives, unless it is given up by then: the signal's reason is thrown. */
export async function orGivenUp<T>(promise: PromiseLike<T>, signal?: AbortSignal): Promise<T> {
  if (!signal) return promise;
  const { promise: givenUp, reject } = later<never>();
  const giveUp = (): void => reject(signal.reason);
  signal.addEventListener('abort', giveUp);
  if (signal.aborted) giveUp();
  try {
    const value = await Promise.race([givenUp, promise]);
    signal.throwIfAborted(); // in this very moment: nobody would take the value
    return value;
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

/** Wait so many seconds, or until it is given up: then the signal's reason is thrown. */
export async function sleep(seconds: number, signal?: AbortSignal): Promise<void> {
  let timer;
  try {
    await orGivenUp(new Promise((done) => (timer = setTimeout(done, milliseconds(seconds)))), signal);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether a promise is settled within so many seconds, one way or the other. */
export async function settles(promise: PromiseLike<unknown>, seconds: number): Promise<boolean> {
  let timer;
  const settled = promise.then(
    () => true,
    () => true,
  );
  try {
    return await Promise.race([
      settled,
      new Promise<boolean>((late) => (timer = setTimeout(late, milliseconds(seconds), false))),
    ]);
  } finally {
    clearTimeout(timer);
  }
}
