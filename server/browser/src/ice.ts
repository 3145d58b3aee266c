/**
 * The STUN and TURN servers that connections are made with: those of the page, and those that the discovery server
 * hands out, as long as their credentials hold by our own clocks. Stale ones are asked for anew first. One that is dead
 * costs a connection no time (rtc.ts).
 */

import type { IceConfig } from './link.ts';
import { now, settles } from './timing.ts';
import type { ConnectOptions } from './types.ts';

/** Seconds that a connection waits for new credentials, and seconds between requests for them. */
const REFRESH_TIME = 2;
const REFRESH_APART = 10;
/** A credential is not used in its last seconds, nor in the last tenth of its time. */
const LAST_SECONDS = 5;
const LAST_PART = 0.1;

/**
 * Seconds by two clocks, and a credential holds as long as it does by both. The one that nobody sets stands still in
 * some browsers while the machine sleeps, and the server's does not.
 */
const clocks = (): number[] => [now(), Date.now() / 1000];
/** Whether so many seconds have passed since then by either. */
const isOver = (since: number[], seconds = 0): boolean =>
  clocks().some((time, index) => time - since[index]! >= seconds);

export class Ice {
  readonly #own: RTCIceServer[];
  readonly #relayOnly: boolean;
  readonly #refresh: () => Promise<unknown>;
  readonly #understood: (servers: readonly RTCIceServer[]) => RTCIceServer[];
  #handedOut: { server: RTCIceServer; ends: number[] }[] = [];
  #refreshing: Promise<unknown> = Promise.resolve();
  #refreshed = [-Infinity, -Infinity];

  /**
   * @param refresh asks the discovery server for its servers; {@link handedOut} is called before it comes back.
   * @param understood which of some servers the browser takes.
   */
  constructor(
    settings: ConnectOptions['ice'],
    refresh: () => Promise<unknown>,
    understood: (servers: readonly RTCIceServer[]) => RTCIceServer[],
  ) {
    this.#own = understood(settings?.servers ?? []);
    this.#relayOnly = settings?.policy === 'relay';
    this.#refresh = refresh;
    this.#understood = understood;
  }

  /** The discovery server has told its servers, and for how many seconds each credential holds; null for ever. */
  handedOut(servers: readonly RTCIceServer[], lifetimes: readonly (number | null)[]): void {
    const taken = this.#understood(servers);
    this.#handedOut = taken.map((server) => {
      const left = lifetimes[servers.indexOf(server)] ?? Infinity;
      const holds = left - Math.min(LAST_SECONDS, left * LAST_PART);
      return { server, ends: clocks().map((time) => time + holds) };
    });
  }

  /** What to make the next connection with; waits a moment if credentials are stale. */
  async config(): Promise<IceConfig> {
    const isStale = ({ ends }: { ends: number[] }): boolean => isOver(ends);
    if (this.#handedOut.some(isStale)) {
      if (isOver(this.#refreshed, REFRESH_APART)) {
        this.#refreshed = clocks();
        this.#refreshing = this.#refresh();
      }
      await settles(this.#refreshing, REFRESH_TIME);
    }
    const fresh = this.#handedOut.filter((each) => !isStale(each)).map(({ server }) => server);
    return { servers: [...this.#own, ...fresh], relayOnly: this.#relayOnly };
  }
}
