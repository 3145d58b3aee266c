/** Bytes and the texts that stand for them. */

/** Bytes as WebCrypto and the channel take them. */
export type Bytes = Uint8Array<ArrayBuffer>;

const ENCODER = new TextEncoder();
/** Fatal, and a byte order mark is a character as any other: there is one text for the bytes and the other way. */
const DECODER = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The bytes of a text in UTF-8. */
export const utf8 = (text: string): Bytes => ENCODER.encode(text);

/** The text of bytes in UTF-8; throws a TypeError where they are none. */
export const fromUtf8 = (data: Uint8Array): string => DECODER.decode(data);

/** One after the other. */
export function concat(...parts: ArrayLike<number>[]): Bytes {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let start = 0;
  for (const part of parts) {
    whole.set(part, start);
    start += part.length;
  }
  return whole;
}

/** Whether the bytes are the same. Not for secrets: it takes less time for some than for others. */
export const equalBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, index) => byte === b[index]);

/** Lower-case hexadecimal digits. */
export const hex = (data: Uint8Array): string =>
  Array.from(data, (byte) => (byte + 256).toString(16).slice(1)).join('');

/** The bytes of hexadecimal digits, which must be such: this is for texts that {@link hex} made. */
export const fromHex = (text: string): Bytes => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));

/** Base64url without padding (RFC 4648 section 5). */
export const toBase64url = (data: Uint8Array): string =>
  btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(''))
    .replace(/\+/g, '-')
    .replace(/\//g, '_')
    .replace(/=+$/, '');

/** The bytes of base64url without padding; null if it is not the one text that its bytes give. */
export function fromBase64url(text: string): Bytes | null {
  try {
    const data = Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
    return toBase64url(data) === text ? data : null;
  } catch {
    return null;
  }
}
