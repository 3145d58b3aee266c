/** Reports the tests of `node --test` as lines of JSON: their names, and what went wrong. */

export default async function* report(events) {
  for await (const { type, data } of events) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const error = data.details.error;
    const text = type === 'test:pass' ? null : String(error?.cause?.stack ?? error?.cause ?? error ?? 'it failed');
    yield `${JSON.stringify({ name: data.name, error: text })}\n`;
  }
}
