/** Passwords that are made for people. */

/** Without those that look alike. 32 of them: each letter is five bits. */
const LETTERS = 'abcdefghijkmnpqrstuvwxyz23456789';

/** A new password of 100 random bits, like `k3vt-p9qa-...`: five groups of four. */
export function makePassword(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(20));
  const letters = Array.from(bytes, (byte) => LETTERS[byte % 32]).join('');
  return letters.replaceAll(/(.{4})(?=.)/g, '$1-');
}
