import type { ComponentChildren } from 'preact';
import { millisText, pathText } from '../logic/format.ts';
import { linkText, US } from '../logic/presence.ts';
import { ErrorBox } from '../parts/error_box.tsx';
import { Fingerprint } from '../parts/fingerprint.tsx';
import { useMonitor, useStore } from '../parts/hooks.ts';
import { Sparkline } from '../parts/sparkline.tsx';

/** The way to a peer, measured for as long as one looks, and whose it is. */
export function PeerCard({ id, name }: { id: string; name: string }) {
  const store = useStore();
  const { samples, path, error, roundTrip } = useMonitor(store.monitor(id));
  const link = linkText(store.links.get(id));
  const known = samples.filter((sample) => sample !== null).sort((a, b) => a - b);
  const fingerprint =
    name === US ? store.bv.fingerprint : (store.contacts.find((one) => one.name === name)?.fingerprint ?? '');
  return (
    <section class="card peer" aria-label="Link">
      <dl class="facts-grid">
        <Fact name="Link">
          <i class={`dot ${link.tone}`} /> {link.text}
        </Fact>
        <Fact name="Path">{pathText(path) || 'not known yet'}</Fact>
        <Fact name="Round trip">{roundTrip === null ? '—' : millisText(roundTrip)}</Fact>
        <Fact name="Median">{known.length ? millisText(known[known.length >> 1]!) : '—'}</Fact>
      </dl>
      <Sparkline samples={samples} />
      <p class="key">
        <span class="note">Fingerprint</span>{' '}
        <Fingerprint value={fingerprint} whose={name === US ? 'own' : `${name}’s`} />
      </p>
      <ErrorBox error={error} quiet />
    </section>
  );
}

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
