/** The classic script: `$BV` exists as soon as its tag has run. */

import { Peer } from './bv.ts';

Object.assign(globalThis, { $BV: new Peer() });
