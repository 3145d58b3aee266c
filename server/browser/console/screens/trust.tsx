import { Heading } from '../parts/heading.tsx';
import { Fingerprint } from '../parts/fingerprint.tsx';
import { useStore } from '../parts/hooks.ts';
import { ClaimForm } from './claim_form.tsx';
import { ContactsTable } from './contacts.tsx';
import { TokenForm } from './token_form.tsx';

/** Who is trusted, and how that begins and ends. */
export function TrustScreen() {
  const store = useStore();
  return (
    <>
      <Heading title="Trust" />
      <p class="lead">
        Two accounts see and reach each other once one of them has given the other a token. From then on each knows the
        other’s key, and no server can pose as either.
      </p>
      <div class="columns">
        <TokenForm />
        <ClaimForm />
      </div>
      <section aria-label="Contacts">
        <h2>Contacts</h2>
        <ContactsTable />
      </section>
      <section class="card" aria-label="Your fingerprint">
        <h2>Your fingerprint</h2>
        <Fingerprint value={store.bv.fingerprint} whose="own" />
        <p class="hint">
          To be sure that nobody read a token on its way, read your fingerprints to each other, by phone say: each of
          you should see the other’s among the contacts. It changes with your password.
        </p>
      </section>
    </>
  );
}
