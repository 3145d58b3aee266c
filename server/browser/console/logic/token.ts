/** What can be seen of a token without using it. */

/** Milliseconds since 1970 at which a token expires; null if the text is no token. Its checksum is not looked at. */
export function tokenExpiry(text: string): number | null {
  const match = /^bv1_([A-Za-z0-9_-]{76})$/.exec(text);
  if (!match?.[1]) return null;
  const raw = atob(match[1].replaceAll('-', '+').replaceAll('_', '/'));
  // Version, key of the inviter, seed; then the expiry in seconds.
  const at = 1 + 32 + 16;
  let seconds = 0;
  for (let index = at; index < at + 4; index++) seconds = seconds * 256 + raw.charCodeAt(index);
  return seconds * 1000;
}

/** A token as it may have been pasted: without spaces and line breaks. */
export function cleanToken(text: string): string {
  return text.replaceAll(/\s+/g, '');
}
