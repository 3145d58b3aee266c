/** The error of the library: one class, told apart by its code. */

import type { BVErrorInfo } from './types.ts';

/** What an error may say beyond its code and its text. */
type Extra = Partial<Pick<BVErrorInfo, 'retryAfter' | 'callId' | 'peer'>>;

/**
 * Why something failed. `code` is one of docs/errors.md, the same in every language; the text is for people.
 *
 * What our own code does wrong is a TypeError, as it is in the browser's own interfaces.
 */
export class BVError extends Error implements BVErrorInfo {
  override readonly name = 'BVError';
  readonly code: string;
  declare readonly retryAfter?: number;
  declare readonly callId?: string;
  declare readonly peer?: string;

  constructor(code: string, message: string = code, extra?: Extra) {
    super(message);
    this.code = code;
    Object.assign(this, extra);
  }

  /** The same error, of that peer: each of those who wait for one thing gets an error of its own. */
  about(peer: string): BVError {
    return new BVError(this.code, this.message, { ...this, peer });
  }
}
