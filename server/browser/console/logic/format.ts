/** Numbers, times and paths as people read them. */

import type { PathInfo } from '../../src/types.ts';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** Bytes with a binary unit: `532 B`, `1.5 KiB`. */
export function bytesText(bytes: number): string {
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${unit === 0 ? bytes : bytes.toFixed(bytes < 10 ? 1 : 0)} ${UNITS[unit]}`;
}

/** A time that was measured, from milliseconds: `0.42 ms`, `12.3 ms`, `1.25 s`. */
export function millisText(ms: number): string {
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 1000) return `${ms.toFixed(ms < 100 ? 1 : 0)} ms`;
  return ms < 60_000 ? `${(ms / 1000).toFixed(2)} s` : spanText(ms / 1000);
}

/** A span in seconds, in its two largest units: `23 h 59 min`. */
export function spanText(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return '0 s';
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ');
}

/** A moment, from milliseconds since 1970, in the reader's own time and language. */
export function dateText(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime())
    ? ''
    : date.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}

/** `3 peers`, `1 peer`. */
export function countText(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** The way to a peer: `host to srflx, IPv4`, `relay (udp) to host`. */
export function pathText(path: PathInfo | null | undefined): string {
  if (!path) return '';
  const local = path.relay ? `${path.local} (${path.relay})` : path.local;
  return `${local} to ${path.remote}${path.family ? `, ${path.family}` : ''}`;
}

/** At most `limit` characters of a text, never half of a surrogate pair. */
export function clip(text: string, limit: number): string {
  if (text.length <= limit) return text;
  const last = text.charCodeAt(limit - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? limit - 1 : limit);
}

/** A text that begins like a sentence, unless its first word is a name like `bv.modules`, and ends like one. */
export function sentence(text: string): string {
  const begun = text.replace(/^[a-z]+(?=[\s,:]|$)/, (word) => word.charAt(0).toUpperCase() + word.slice(1));
  return begun + (/[.!?…]$/.test(text) ? '' : '.');
}

/** What to save a file as: the last part of its path. */
export function fileName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1) || 'file';
}
