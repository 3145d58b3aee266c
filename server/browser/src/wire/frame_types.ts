/**
 * The numbers of the binary protocol (docs/protocol.md, "Messages and frames"): sizes, flags, types of frames.
 *
 * A file that imports nothing, so that the bundler puts the numbers where they are used.
 */

/** Version of this protocol; another one in the other side's hello ends the link. */
export const VERSION = 1;
/** Longest message that we send, headers included: every WebRTC stack takes it. */
export const MAX_SENT_MESSAGE = 16_384;
/** Longest message that we take. */
export const MAX_RECEIVED_MESSAGE = 65_536;
export const HEADER_SIZE = 8;
/** Length of the Ed25519 signature at the head of hello. */
export const PROOF_SIZE = 64;
/** Longest module name, in UTF-8 bytes. */
export const MAX_MODULE_NAME = 200;
/** Deepest nesting of JSON, and most brackets that open in it, those in texts counted, too. */
export const MAX_JSON_DEPTH = 64;
export const MAX_JSON_BRACKETS = 2 ** 18;
/** Longest item of a stream. */
export const MAX_ITEM = 524_288;
/** Most credit that a stream or a link may have, and least that it begins with. */
export const MAX_CREDIT = 2 ** 31 - 1;
export const MIN_CREDIT = 2 ** 20;

/** Flags. RAW: the body or item is bytes, not JSON. */
export const RAW = 1;
/** In a request: items follow it. In a response: it is a stream of items. */
export const STREAM = 2;
/** In a request: the caller takes a stream for an answer. */
export const TAKES_STREAM = 4;

/** Types of frames; the tables in docs/protocol.md tell what is in each. */
export const HELLO = 0x01;
export const GOAWAY = 0x02;
export const PING = 0x03;
export const PONG = 0x04;
export const HOLD = 0x05;
export const REQUEST = 0x10;
export const RESPONSE = 0x11;
export const BODY = 0x12;
export const ERROR = 0x13;
export const CANCEL = 0x14;
export const ITEM = 0x20;
export const PART = 0x21;
export const END = 0x22;
export const CREDIT = 0x23;
/** From here on, types that are not known are skipped. */
export const EXTENSIONS = 0x80;
