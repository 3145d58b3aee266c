import { useRef } from 'preact/hooks';
import type { PeerInfo } from '../../src/types.ts';
import { millisText, pathText } from '../logic/format.ts';
import { linkText } from '../logic/presence.ts';
import { href } from '../logic/route.ts';
import { useMonitor, useOnScreen, useStore } from '../parts/hooks.ts';
import { Sparkline } from '../parts/sparkline.tsx';

/** A peer in the list. The way to it is measured while the row is on the screen. */
export function PeerRow({ peer: { id, name }, measuring }: { peer: PeerInfo; measuring: boolean }) {
  const store = useStore();
  const ref = useRef<HTMLTableRowElement>(null);
  const { samples, path, error, roundTrip } = useMonitor(store.monitor(id), useOnScreen(ref) && measuring);
  const link = linkText(store.links.get(id));
  return (
    <tr ref={ref}>
      <th scope="row">
        <a class="mono" href={href({ screen: 'peer', id })} aria-label={`${name} ${id}`}>
          <i class={`dot ${link.tone}`} />
          {id}
        </a>
      </th>
      <td class="wide">{link.text}</td>
      <td class="wide">{error ? <code>{error.code}</code> : pathText(path)}</td>
      <td class="number">{roundTrip === null || error ? '—' : millisText(roundTrip)}</td>
      <td class="plot">
        <Sparkline samples={samples} />
      </td>
    </tr>
  );
}
