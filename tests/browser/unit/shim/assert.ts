/** What the unit tests use of `node:assert/strict`, for a browser. */

type Check = RegExp | object | ((error: any) => unknown);
/** What is expected of the error, or only a text for people. */
type Expected = Check | string;

/** What has the same prototype, and the same in it, without any conversion. */
function same(left: unknown, right: unknown): boolean {
  if (Object.is(left, right)) return true;
  if (typeof left !== 'object' || typeof right !== 'object' || left === null || right === null) return false;
  if (Object.getPrototypeOf(left) !== Object.getPrototypeOf(right)) return false;
  if ((Array.isArray(left) && Array.isArray(right)) || (left instanceof Uint8Array && right instanceof Uint8Array)) {
    if (left.length !== right.length) return false;
    for (let at = 0; at < left.length; at++) if (!same(left[at], right[at])) return false;
    return true;
  }
  if (left instanceof Map && right instanceof Map) {
    return left.size === right.size && [...left].every(([key, value]) => right.has(key) && same(value, right.get(key)));
  }
  if (left instanceof Set && right instanceof Set) {
    return left.size === right.size && [...left].every((one) => right.has(one));
  }
  if (left instanceof Date && right instanceof Date) return Object.is(+left, +right);
  if (left instanceof RegExp && right instanceof RegExp) return String(left) === String(right);
  if (left instanceof Error && right instanceof Error) {
    if (left.name !== right.name || left.message !== right.message) return false;
  }
  const keys = ownKeys(left);
  return (
    keys.length === ownKeys(right).length &&
    keys.every((key) => Object.hasOwn(right, key) && same(Reflect.get(left, key), Reflect.get(right, key)))
  );
}

const ownKeys = (value: object): PropertyKey[] =>
  Reflect.ownKeys(value).filter((key) => Object.prototype.propertyIsEnumerable.call(value, key));

function show(value: unknown): string {
  const text = JSON.stringify(value, (_, part) => (typeof part === 'bigint' ? `${part}n` : part));
  return (text ?? String(value)).slice(0, 2_000);
}

function fail(what: string, message?: string): never {
  throw new Error(message === undefined ? what : `${message}: ${what}`);
}

/** Throws, unless the error is as expected; see `assert.throws` of Node. */
function check(error: unknown, expected?: Expected, message?: string): void {
  if (expected === undefined || typeof expected === 'string') return;
  if (expected instanceof RegExp) {
    if (!expected.test(String(error))) fail(`${error} does not match ${expected}`, message);
  } else if (typeof expected === 'function') {
    if (expected.prototype !== undefined && error instanceof expected) return;
    if (expected === Error || Object.prototype.isPrototypeOf.call(Error, expected)) throw error;
    if ((expected as (error: unknown) => unknown)(error) !== true) fail(`${error} is not as expected`, message);
  } else {
    for (const [key, value] of Object.entries(expected)) {
      const found: unknown = Reflect.get(error as object, key);
      const fits = value instanceof RegExp && typeof found === 'string' ? value.test(found) : same(found, value);
      if (!fits) fail(`${key} of ${error} is ${show(found)}, not ${show(value)}`, message);
    }
  }
}

interface Assert {
  ok(value: unknown, message?: string): asserts value;
  equal<T>(actual: unknown, expected: T, message?: string): asserts actual is T;
  deepEqual(actual: unknown, expected: unknown, message?: string): void;
  match(text: string, pattern: RegExp, message?: string): void;
  throws(body: () => unknown, expected?: Expected, message?: string): void;
  rejects(promise: Promise<unknown> | (() => Promise<unknown>), expected?: Expected, message?: string): Promise<void>;
}

const assert: Assert = {
  ok(value, message) {
    if (!value) fail(`${show(value)} is not true`, message);
  },
  equal(actual, expected, message) {
    if (!Object.is(actual, expected)) fail(`${show(actual)} is not ${show(expected)}`, message);
  },
  deepEqual(actual, expected, message) {
    if (!same(actual, expected)) fail(`${show(actual)} is not ${show(expected)}`, message);
  },
  match(text, pattern, message) {
    if (!pattern.test(text)) fail(`${show(text)} does not match ${pattern}`, message);
  },
  throws(body, expected, message) {
    try {
      body();
    } catch (error) {
      return check(error, expected, message);
    }
    fail('nothing was thrown', typeof expected === 'string' ? expected : message);
  },
  async rejects(promise, expected, message) {
    try {
      await (typeof promise === 'function' ? promise() : promise);
    } catch (error) {
      return check(error, expected, message);
    }
    fail('it was not rejected', typeof expected === 'string' ? expected : message);
  },
};
export default assert;
