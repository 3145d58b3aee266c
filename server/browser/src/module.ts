/** The module: `import $BV from ".../BV.mjs"`. */

import { Peer } from './bv.ts';
import type { BoneValue } from './types.ts';

export { BVError } from './errors.ts';
export type * from './types.ts';

/** The tab as a peer. */
export const $BV: BoneValue = new Peer();
export default $BV;
