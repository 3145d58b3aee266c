/**
 * The binary frames of a link (docs/protocol.md, "Messages and frames").
 *
 * A DataChannel message holds one or more whole frames: a header of eight bytes (type, flags, length of the payload,
 * call; big-endian) and the payload. What does not follow the rules is thrown as `protocol_error`: the link ends.
 */

import { BVError } from '../errors.ts';
import { fromUtf8, utf8, type Bytes } from './bytes.ts';
import {
  BODY, CANCEL, CREDIT, END, ERROR, EXTENSIONS, GOAWAY, HEADER_SIZE, HELLO, HOLD, ITEM, MAX_CREDIT, MAX_JSON_BRACKETS,
  MAX_JSON_DEPTH, MAX_MODULE_NAME, MAX_RECEIVED_MESSAGE, MIN_CREDIT, PART, PING, PONG, PROOF_SIZE, RAW, REQUEST,
  RESPONSE, STREAM, TAKES_STREAM, VERSION,
} from './frame_types.ts';

/** The flags that each type may have; a type that is not here is not known. */
export const FLAGS: ReadonlyMap<number, number> = new Map([
  ...[HELLO, GOAWAY, PING, PONG, HOLD, BODY, ERROR, CANCEL, PART, END, CREDIT].map((type) => [type, 0] as const),
  [REQUEST, RAW | STREAM | TAKES_STREAM],
  [RESPONSE, RAW | STREAM],
  [ITEM, RAW],
]);

export const EMPTY = new Uint8Array();

/** A frame as it came; `payload` is a view of the message. */
export interface Frame {
  readonly type: number;
  readonly flags: number;
  /** 0 in a frame that concerns the link. */
  readonly call: number;
  readonly payload: Uint8Array;
}

/** What the sender of a hello takes; sizes in bytes. */
export interface HelloLimits {
  /** The longest request or response. */
  readonly body: number;
  /** Calls of the other side under way at once. */
  readonly calls: number;
  /** Long bodies that are not complete, of requests and of responses each. */
  readonly incomplete: number;
  /** Credit that each stream begins with, and all of them together. */
  readonly stream: number;
  readonly link: number;
}

export interface HelloBody {
  readonly limits: HelloLimits;
  readonly agent: string;
}

/** Why a call failed. */
export interface ErrorBody {
  readonly code: string;
  readonly message: string;
  readonly callId?: string;
  readonly retryAfter?: number;
}

/** The error for what the other side must not do. */
export const broken = (what: string): BVError => new BVError('protocol_error', what);

const u32 = (data: Uint8Array, at: number): number => new DataView(data.buffer, data.byteOffset + at, 4).getUint32(0);

// -- frames -----------------------------------------------------------------------------------------------------------

/** What stands before a payload of that length. */
export function header(type: number, call: number, length: number, flags = 0, more = 0): Bytes {
  const frame = new Uint8Array(HEADER_SIZE + more);
  const view = new DataView(frame.buffer);
  view.setUint16(0, type * 256 + flags);
  view.setUint16(2, length);
  view.setUint32(4, call);
  return frame;
}

/** One frame, whose payload is numbers of four bytes and then bytes. */
export function encode(type: number, call = 0, flags = 0, numbers: number[] = [], ...parts: Uint8Array[]): Bytes {
  let length = 4 * numbers.length;
  for (const part of parts) length += part.length;
  const frame = header(type, call, length, flags, length);
  const view = new DataView(frame.buffer);
  let at = HEADER_SIZE;
  for (const number of numbers) {
    view.setUint32(at, number);
    at += 4;
  }
  for (const part of parts) {
    frame.set(part, at);
    at += part.length;
  }
  return frame;
}

/** The frames of a message; those of extension types are left out. */
export function split(message: Uint8Array): Frame[] {
  const size = message.length;
  if (!size || size > MAX_RECEIVED_MESSAGE) throw broken(`a message of ${size} bytes`);
  const found: Frame[] = [];
  const view = new DataView(message.buffer, message.byteOffset, size);
  for (let at = 0; at < size; ) {
    const start = at + HEADER_SIZE;
    const end = start <= size ? start + view.getUint16(at + 2) : Infinity;
    if (end > size) throw broken('a message ends inside a frame');
    const type = view.getUint8(at);
    if (FLAGS.has(type)) {
      const payload = message.subarray(start, end);
      found.push({ type, flags: view.getUint8(at + 1), call: view.getUint32(at + 4), payload });
    } else if (type < EXTENSIONS) {
      throw broken(`unknown frame type ${type}`);
    }
    at = end;
  }
  return found;
}

// -- payloads ---------------------------------------------------------------------------------------------------------

/** The first frame of each side. */
export function encodeHello(proof: Uint8Array, limits: HelloLimits, agent: string): Bytes {
  const body = { version: VERSION, limits, ...(agent && { agent }) };
  return encode(HELLO, 0, 0, [], proof, utf8(JSON.stringify(body)));
}

/** The proof, and the JSON that must not be looked at before the proof is accepted. */
export function decodeHello(payload: Uint8Array): [proof: Bytes, body: Bytes] {
  if (payload.length <= PROOF_SIZE) throw broken('malformed hello');
  return [payload.slice(0, PROOF_SIZE), payload.slice(PROOF_SIZE)];
}

/** What the other side takes. */
export function decodeHelloBody(data: Uint8Array): HelloBody {
  const { version, limits, features = [], agent = '' } = decodeObject(data);
  if (version !== VERSION) throw broken(`the other side speaks version ${version}`);
  const { body, calls, incomplete, stream, link } = limits ?? {};
  if (
    !isWhole(body, 0, 2 ** 31) ||
    !isWhole(calls, 1, 2 ** 20) ||
    !isWhole(incomplete, body, 2 ** 31) ||
    !isWhole(stream, MIN_CREDIT, MAX_CREDIT) ||
    !isWhole(link, MIN_CREDIT, MAX_CREDIT) ||
    !Array.isArray(features) ||
    features.length > 32 ||
    !features.every((feature) => isText(feature, 0, 32)) ||
    !isText(agent, 0, 128)
  ) {
    throw broken('malformed hello');
  }
  return { limits: { body, calls, incomplete, stream, link }, agent };
}

/** No call after `last` is accepted; those under way are finished. */
export const encodeGoaway = (last: number, reason: string): Bytes => encode(GOAWAY, 0, 0, [last], utf8(reason));

export function decodeGoaway(payload: Uint8Array): [last: number, reason: string] {
  const [last, reason] = decodeNumbered(payload, 64);
  return [last, text(reason)];
}

/** Whether this side wants the link kept while nothing uses it. */
export const encodeHold = (holding: boolean): Bytes => encode(HOLD, 0, 0, [], Uint8Array.of(+holding));

export function decodeHold(payload: Uint8Array): boolean {
  if (payload.length !== 1 || payload[0]! > 1) throw broken('malformed hold');
  return payload[0] === 1;
}

/**
 * A module's name as it stands in a request.
 *
 * @throws TypeError: it is empty or too long.
 */
export function encodeName(module: string): Bytes {
  const name = utf8(module);
  if (!name.length || name.length > MAX_MODULE_NAME) {
    throw new TypeError(`a module name has 1 to ${MAX_MODULE_NAME} bytes`);
  }
  return name;
}

/** The frame that opens a call: `timeLeft` in seconds; of `length` bytes of body, `first` are in it. */
export function encodeRequest(
  call: number,
  module: Uint8Array,
  timeLeft: number,
  length: number,
  first: Uint8Array,
  flags = 0,
): Bytes {
  const ms = Math.max(0, Math.min(Math.trunc(timeLeft * 1000), 2 ** 32 - 1));
  return encode(REQUEST, call, flags, [ms, length], Uint8Array.of(module.length), module, first);
}

export interface Request {
  readonly module: string;
  /** Milliseconds left. */
  readonly ms: number;
  /** Length of the body, and its first bytes. */
  readonly length: number;
  readonly first: Uint8Array;
}

export function decodeRequest(payload: Uint8Array): Request {
  const size = payload[8] ?? 0;
  const start = 9 + size;
  if (!size || size > MAX_MODULE_NAME || payload.length < start) throw broken('malformed request');
  const length = u32(payload, 4);
  const first = payload.subarray(start);
  if (first.length > length) throw broken('malformed request');
  return { module: text(payload.subarray(9, start)), ms: u32(payload, 0), length, first };
}

/** The frame that begins an answer. */
export const encodeResponse = (call: number, length: number, first: Uint8Array, flags = 0): Bytes =>
  encode(RESPONSE, call, flags, [length], first);

/** Length of a response or item, and its first bytes. */
export function decodeSized(payload: Uint8Array, most = Infinity): [length: number, first: Uint8Array] {
  const [length, first] = decodeNumbered(payload, Infinity);
  if (length > most || first.length > length) throw broken('body or item too long');
  return [length, first];
}

/** The frame that ends a call without a result. */
export const encodeError = (call: number, body: ErrorBody): Bytes =>
  encode(ERROR, call, 0, [], utf8(JSON.stringify(body)));

export function decodeError(payload: Uint8Array): ErrorBody {
  const { code, message = '', callId, retryAfter } = decodeObject(payload);
  if (
    !isText(code, 1, 32) ||
    !isText(message, 0, 4000) ||
    !(callId == null || isText(callId, 0, 64)) ||
    !(retryAfter == null || (Number.isFinite(retryAfter) && retryAfter >= 0))
  ) {
    throw broken('malformed error');
  }
  return { code, message, ...(callId != null && { callId }), ...(retryAfter != null && { retryAfter }) };
}

/** What stands before the `first` bytes, of `length`, of an item; the rest follows in PART frames. */
export function itemHead(call: number, length: number, first: number, flags: number): Bytes {
  const head = header(ITEM, call, 4 + first, flags, 4);
  new DataView(head.buffer).setUint32(HEADER_SIZE, length);
  return head;
}

/** So many bytes more may be sent: in the other side's stream of that call, or on the link (call 0). */
export const encodeCredit = (call: number, credit: number): Bytes => encode(CREDIT, call, 0, [credit]);

export function decodeCredit(payload: Uint8Array): number {
  const [credit] = decodeNumbered(payload, 0);
  if (!credit) throw broken('a credit of nothing');
  return credit;
}

// -- bodies -----------------------------------------------------------------------------------------------------------

/**
 * The body of a request, response or item: its bytes, and whether they are raw rather than JSON.
 *
 * `undefined` counts as null; NaN and infinite numbers become null. What JSON cannot say is a TypeError,
 * what nests deeper than 64 a RangeError.
 */
export function encodeBody(value: unknown): [body: Bytes, raw: boolean] {
  if (value instanceof ArrayBuffer) value = new Uint8Array(value);
  if (ArrayBuffer.isView(value)) {
    return [new Uint8Array(value.buffer, value.byteOffset, value.byteLength).slice(), true];
  }
  const json = JSON.stringify(value ?? null);
  if (json === undefined) throw new TypeError(`a ${typeof value} is neither bytes nor JSON`);
  // What is half of a surrogate pair is written as an escape, and nothing else of that range is.
  const half = json.includes('\\ud') && /(?<!\\)(?:\\\\)*\\ud/.test(json);
  if (half) throw new TypeError('half a surrogate pair is no text');
  const body = utf8(json);
  checkNesting(body);
  return [body, false];
}

/** The value of a body; a SyntaxError, RangeError or TypeError if it is not JSON, or nested deeper than 64. */
export function decodeBody(body: Uint8Array, raw: boolean): any {
  if (raw) return body;
  checkNesting(body);
  return JSON.parse(fromUtf8(body));
}

/** Refuse JSON that nests too deep, or has too many brackets, before anything parses it. */
function checkNesting(data: Uint8Array): void {
  if (data.length <= MAX_JSON_DEPTH) return;
  let opened = 0;
  let depth = 0;
  let quoted = false;
  for (let at = 0; at < data.length; at++) {
    const byte = data[at]!;
    if (byte === 0x22) quoted = !quoted;
    else if (byte === 0x5c) at++;
    else if ((byte | 0x20) === 0x7b) {
      opened++;
      if (!quoted) depth++;
      if (opened > MAX_JSON_BRACKETS || depth > MAX_JSON_DEPTH) throw new RangeError('nested too deep');
    } else if ((byte | 0x20) === 0x7d && !quoted) depth--;
  }
}

// -- checks -----------------------------------------------------------------------------------------------------------

const isWhole = (value: unknown, least: number, most: number): boolean =>
  Number.isInteger(value) && (value as number) >= least && (value as number) <= most;

/** Whether it is a text of so many code points. */
function isText(value: unknown, least: number, most: number): boolean {
  return typeof value === 'string' && value.length <= 2 * most && isWhole([...value].length, least, most);
}

/** A number, and at most so many bytes after it. */
function decodeNumbered(payload: Uint8Array, most: number): [number, Uint8Array] {
  if (payload.length < 4 || payload.length > 4 + most) throw broken('a frame of the wrong length');
  return [u32(payload, 0), payload.subarray(4)];
}

/** The fields of a JSON object; whatever else it is has none. */
function decodeObject(data: Uint8Array): any {
  try {
    return Object(decodeBody(data, false));
  } catch (error) {
    throw broken(`malformed JSON: ${(error as Error).message}`);
  }
}

function text(data: Uint8Array): string {
  try {
    return fromUtf8(data);
  } catch {
    throw broken('text is not UTF-8');
  }
}
