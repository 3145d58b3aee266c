/** What peers answer, made ready to be shown: bounded, and as text only. */

import type { Value } from '../../src/types.ts';
import { clip } from './format.ts';

/** Letters that are shown of one value; the rest can be saved. */
export const SHOWN = 20_000;

export interface Shown {
  text: string;
  /** Bytes of the whole: of the JSON text as it is shown, or of the bytes. */
  size: number;
  /** Whether the text is only the beginning. */
  cut: boolean;
  bytes: Uint8Array | null;
}

/** Letters up to which JSON is set out in lines: the indents of what nests deep can come to a hundred times as much. */
const SET_OUT = 200_000;

/** Make a value ready. */
export function show(value: Value | undefined, limit = SHOWN, inLines = true): Shown {
  if (value instanceof Uint8Array) return { text: '', size: value.length, cut: false, bytes: value };
  const whole = jsonText(value, inLines);
  const text = clip(whole, limit);
  return { text, size: whole.length, cut: text.length < whole.length, bytes: null };
}

/** The whole value as a file would have it. */
export function blobOf(value: Value | undefined): Blob {
  if (value instanceof Uint8Array) return new Blob([value as Uint8Array<ArrayBuffer>]);
  return new Blob([jsonText(value, true)], { type: 'application/json' });
}

function jsonText(value: Value | undefined, inLines: boolean): string {
  const text = JSON.stringify(value ?? null);
  return inLines && text.length <= SET_OUT ? JSON.stringify(value ?? null, null, 2) : text;
}
